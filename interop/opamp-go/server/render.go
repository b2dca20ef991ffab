package main

import (
	"encoding/hex"
	"strings"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// messageFields shows a message: which parts it had, and what they said.
func messageFields(c *connection, uid uuid.UUID, message *protobufs.AgentToServer) fields {
	shown := fields{
		"connection":   c.number,
		"uid":          uid.String(),
		"sequence_num": message.GetSequenceNum(),
		"capabilities": capabilityNames(message.GetCapabilities()),
		"flags":        message.GetFlags(),
	}
	parts := []string{}
	part := func(name string, value any) {
		parts = append(parts, name)
		shown[name] = value
	}
	if description := message.GetAgentDescription(); description != nil {
		part("agent_description", fields{
			"identifying":     attributes(description.GetIdentifyingAttributes()),
			"non_identifying": attributes(description.GetNonIdentifyingAttributes()),
		})
	}
	if health := message.GetHealth(); health != nil {
		part("health", healthFields(health))
	}
	if effective := message.GetEffectiveConfig(); effective != nil {
		files := fields{}
		for name, file := range effective.GetConfigMap().GetConfigMap() {
			files[name] = string(file.GetBody())
		}
		part("effective_config", files)
	}
	if status := message.GetRemoteConfigStatus(); status != nil {
		part("remote_config_status", fields{
			"hash":   hex.EncodeToString(status.GetLastRemoteConfigHash()),
			"status": strings.TrimPrefix(status.GetStatus().String(), "RemoteConfigStatuses_"),
			"error":  status.GetErrorMessage(),
		})
	}
	if message.GetAgentDisconnect() != nil {
		part("agent_disconnect", true)
	}
	if status := message.GetConnectionSettingsStatus(); status != nil {
		part("connection_settings_status", fields{
			"hash":   string(status.GetLastConnectionSettingsHash()),
			"status": strings.TrimPrefix(status.GetStatus().String(), "ConnectionSettingsStatuses_"),
		})
	}
	if message.GetPackageStatuses() != nil {
		part("package_statuses", true)
	}
	if message.GetConnectionSettingsRequest() != nil {
		part("connection_settings_request", true)
	}
	if message.GetCustomCapabilities() != nil {
		part("custom_capabilities", message.GetCustomCapabilities().GetCapabilities())
	}
	shown["parts"] = parts
	return shown
}

func healthFields(health *protobufs.ComponentHealth) fields {
	components := fields{}
	for name, component := range health.GetComponentHealthMap() {
		components[name] = healthFields(component)
	}
	return fields{
		"healthy":              health.GetHealthy(),
		"status":               health.GetStatus(),
		"last_error":           health.GetLastError(),
		"start_time_unix_nano": health.GetStartTimeUnixNano(),
		"components":           components,
	}
}

func attributes(pairs []*protobufs.KeyValue) fields {
	shown := fields{}
	for _, pair := range pairs {
		shown[pair.GetKey()] = pair.GetValue().GetStringValue()
	}
	return shown
}

// capabilityNames lists the bits of a set, by name where opamp-go has one.
func capabilityNames(bits uint64) []string {
	names := []string{}
	for bit := uint64(1); bit != 0 && bit <= bits; bit <<= 1 {
		if bits&bit != 0 {
			names = append(names, strings.TrimPrefix(protobufs.AgentCapabilities(bit).String(), "AgentCapabilities_"))
		}
	}
	return names
}

// sentParts names what a message of ours holds beside the acknowledgement.
func sentParts(message *protobufs.ServerToAgent) []string {
	parts := []string{}
	for _, part := range []struct {
		name  string
		there bool
	}{
		{"agent_identification", message.GetAgentIdentification() != nil},
		{"command", message.GetCommand() != nil},
		{"connection_settings", message.GetConnectionSettings() != nil},
		{"full_state", message.GetFlags() != 0},
		{"remote_config", message.GetRemoteConfig() != nil},
	} {
		if part.there {
			parts = append(parts, part.name)
		}
	}
	return parts
}
