package main

import (
	"errors"
	"runtime/debug"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/opampextension"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/debugexporter"
	"go.opentelemetry.io/collector/exporter/nopexporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/batchprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/nopreceiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

const (
	core    = "go.opentelemetry.io/collector/"
	contrib = "github.com/open-telemetry/opentelemetry-collector-contrib/"
	own     = "opamp-rs/interop/collector"
)

// from is a factory and the module it comes from, which the opamp extension reports as `code.namespace` and hashes.
type from[T component.Factory] struct {
	module  string
	factory T
}

// components names everything that a config may use.
func components() (otelcol.Factories, error) {
	var (
		factories = otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
		failures  [4]error
	)
	factories.Receivers, factories.ReceiverModules, failures[0] = named(
		from[receiver.Factory]{core + "receiver/nopreceiver", nopreceiver.NewFactory()},
		from[receiver.Factory]{core + "receiver/otlpreceiver", otlpreceiver.NewFactory()},
		from[receiver.Factory]{own, newAilingFactory()},
	)
	factories.Processors, factories.ProcessorModules, failures[1] = named(
		from[processor.Factory]{core + "processor/batchprocessor", batchprocessor.NewFactory()},
	)
	factories.Exporters, factories.ExporterModules, failures[2] = named(
		from[exporter.Factory]{core + "exporter/debugexporter", debugexporter.NewFactory()},
		from[exporter.Factory]{core + "exporter/nopexporter", nopexporter.NewFactory()},
	)
	factories.Extensions, factories.ExtensionModules, failures[3] = named(
		from[extension.Factory]{contrib + "extension/opampextension", opampextension.NewFactory()},
	)
	return factories, errors.Join(failures[:]...)
}

func named[T component.Factory](all ...from[T]) (map[component.Type]T, map[component.Type]string, error) {
	factories := make([]T, 0, len(all))
	modules := make(map[component.Type]string, len(all))
	for _, one := range all {
		factories = append(factories, one.factory)
		modules[one.factory.Type()] = one.module + " " + versionOf(one.module)
	}
	byType, err := otelcol.MakeFactoryMap(factories...)
	return byType, modules, err
}

// versionOf answers which release of a module this program was built with: go.mod alone decides that.
func versionOf(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "(devel)"
}
