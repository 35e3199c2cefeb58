// Says what is wrong with a dashboard by Grafana's schema: dashboard-schema FILE. Fields that the schema does not know,
// and required ones that are missing, are wrong, also in panels and queries.
package main

import (
	"encoding/json"
	"errors"
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
	// Of an unknown type nothing would be checked.
	var types struct {
		Panels []struct {
			Type    string
			Targets []struct {
				Datasource struct{ Type string }
			}
		}
	}
	if err := json.Unmarshal(text, &types); err != nil {
		return err
	}
	queries := 0
	for _, panel := range types.Panels {
		if _, known := runtime.ConfigForPanelcfgVariant(panel.Type); !known && panel.Type != "row" {
			return fmt.Errorf("panels of type %s are not checked here", panel.Type)
		}
		for _, query := range panel.Targets {
			if query.Datasource.Type != "prometheus" {
				return fmt.Errorf("a query of type %q is not checked here", query.Datasource.Type)
			}
			queries++
		}
	}
	// Without mistakes it answers with an empty list of them.
	var read dashboard.Dashboard
	var mistakes cog.BuildErrors
	if err := read.UnmarshalJSONStrict(text); err != nil && !(errors.As(err, &mistakes) && len(mistakes) == 0) {
		return err
	}
	fmt.Printf("%d panels and rows, %d queries\n", len(types.Panels), queries)
	return nil
}
