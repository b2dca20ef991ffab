package main

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// configFile is one entry of a config map. The empty name is a valid name: it is
// the only file of an agent that has a single config.
type configFile struct {
	Body        []byte `json:"body"`
	ContentType string `json:"content_type,omitempty"`
}

type configMap map[string]configFile

// builtinConfig is what the agent runs before any remote config.
func builtinConfig() configMap {
	return configMap{"": {Body: []byte("receivers: {}\n"), ContentType: "text/yaml"}}
}

func configFromWire(wire *protobufs.AgentConfigMap) configMap {
	files := configMap{}
	for name, file := range wire.GetConfigMap() {
		files[name] = configFile{Body: file.GetBody(), ContentType: file.GetContentType()}
	}
	return files
}

func (c configMap) toWire() *protobufs.AgentConfigMap {
	wire := &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{}}
	for name, file := range c {
		wire.ConfigMap[name] = &protobufs.AgentConfigFile{Body: file.Body, ContentType: file.ContentType}
	}
	return wire
}

func (c configMap) names() []string {
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// check says whether the agent can run this config: it needs a file, and none
// may contain the marker that stands for a mistake.
func (c configMap) check(marker string) error {
	if len(c) == 0 {
		return fmt.Errorf("the config has no file")
	}
	for _, name := range c.names() {
		if marker != "" && bytes.Contains(c[name].Body, []byte(marker)) {
			return fmt.Errorf("file %q: found %q", name, marker)
		}
	}
	return nil
}
