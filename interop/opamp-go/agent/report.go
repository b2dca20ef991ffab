package main

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// command executes one line of stdin.
func (a *agent) command(words []string) error {
	switch {
	case words[0] == "health" && len(words) == 2 && words[1] == "ok":
		a.setHealth(true, "")
		return a.reportHealth()
	case words[0] == "health" && len(words) > 2 && words[1] == "bad":
		a.setHealth(false, strings.Join(words[2:], " "))
		return a.reportHealth()
	case words[0] == "describe" && len(words) == 3:
		a.mutex.Lock()
		a.attributes[words[1]] = words[2]
		description := a.description()
		a.mutex.Unlock()
		return a.client.SetAgentDescription(description)
	case words[0] == "components" && len(words) > 1 && len(words)%2 == 1:
		return a.setComponents(words[1:])
	case words[0] == "custom_capabilities":
		return a.announceCustom(words[1:])
	case words[0] == "custom" && len(words) == 4:
		return a.sendCustom(words[1], words[2], words[3])
	case words[0] == "request_certificate" && len(words) <= 2:
		return a.requestCertificate(words[1:])
	}
	return fmt.Errorf("no such command: see the documentation of this program")
}

func (a *agent) setHealth(healthy bool, lastError string) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.healthy, a.lastError = healthy, lastError
}

func (a *agent) reportHealth() error {
	a.mutex.Lock()
	health := a.health()
	a.mutex.Unlock()
	return a.client.SetHealth(health)
}

// health has a status time that differs in every report, as real collectors
// have. The caller holds the mutex.
func (a *agent) health() *protobufs.ComponentHealth {
	now := uint64(time.Now().UnixNano())
	start := uint64(a.startTime.UnixNano())
	status := "StatusOK"
	if !a.healthy {
		status = "StatusPermanentError"
	}
	pipeline := &protobufs.ComponentHealth{
		Healthy: a.healthy, StartTimeUnixNano: start, LastError: a.lastError, Status: status, StatusTimeUnixNano: now,
	}
	return &protobufs.ComponentHealth{
		Healthy: a.healthy, StartTimeUnixNano: start, LastError: a.lastError, Status: status, StatusTimeUnixNano: now,
		ComponentHealthMap: map[string]*protobufs.ComponentHealth{"pipeline:logs": pipeline},
	}
}

// description is what identifies the agent, and what merely describes it. The
// caller holds the mutex.
func (a *agent) description() *protobufs.AgentDescription {
	keys := make([]string, 0, len(a.attributes))
	for key := range a.attributes {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	description := &protobufs.AgentDescription{
		IdentifyingAttributes: []*protobufs.KeyValue{
			attribute("service.name", a.options.name),
			attribute("service.version", a.options.version),
			attribute("service.instance.id", a.state.UID),
		},
	}
	for _, key := range keys {
		description.NonIdentifyingAttributes = append(description.NonIdentifyingAttributes, attribute(key, a.attributes[key]))
	}
	return description
}

func attribute(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{
		Key:   key,
		Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}},
	}
}
