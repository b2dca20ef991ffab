// A collector with the opamp extension and a few components beside it: little enough to be built within a test run.
//
// It is the service, the command line and the components of the OpenTelemetry Collector as they are published. The one
// component of our own is the receiver `ailing`, because none of those reports a failure that can be had on demand.
package main

import (
	"log"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"
)

// What the collector calls itself: `service.name` of its description.
const name = "otelcol-opamp"

func main() {
	settings := otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{
			Command:     name,
			Description: "OpenTelemetry Collector with the opamp extension",
			Version:     versionOf(core + "otelcol"),
		},
		Factories: components,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{
					envprovider.NewFactory(),
					fileprovider.NewFactory(),
					yamlprovider.NewFactory(),
				},
			},
		},
	}
	if err := otelcol.NewCommand(settings).Execute(); err != nil {
		log.Fatal(err)
	}
}
