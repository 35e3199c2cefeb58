// Says what is wrong with a dashboard by Grafana's schema: dashboard-schema FILE. Fields that the schema does not know,
// and required ones that are missing, are wrong, also in panels and queries.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(file string) error {
	runtime := cog.NewRuntime()
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var read dashboard.Dashboard
	if err := read.UnmarshalJSONStrict(text); err != nil {
		return err
	}
	if err := read.Validate(); err != nil {
		return err
	}
	queries := 0
	for _, panel := range read.Panels {
		if panel.Panel == nil {
			continue
		}
		// Of an unknown type nothing would have been checked.
		if _, known := runtime.ConfigForPanelcfgVariant(panel.Panel.Type); !known {
			return fmt.Errorf("panels of type %s are not checked here", panel.Panel.Type)
		}
		for _, query := range panel.Panel.Targets {
			if query.DataqueryType() != "prometheus" {
				return fmt.Errorf("a query of type %q is not checked here", query.DataqueryType())
			}
			queries++
		}
	}
	fmt.Printf("%d panels and rows, %d queries\n", len(read.Panels), queries)
	return nil
}
