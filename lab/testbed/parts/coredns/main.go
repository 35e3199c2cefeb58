// CoreDNS with the plugins that the bed's Corefile uses. The main package of CoreDNS links those of every cloud's
// name service as well, and their clients take most of its build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// In the order of CoreDNS itself: a query passes them one after the other.
	plugins := []string{"bind", "ready", "errors", "template", "kubernetes"}
	if err := dnsserver.SetDirectives(plugins); err != nil {
		panic(err)
	}
	coremain.Run()
}
