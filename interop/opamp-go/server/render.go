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
		"peer":         c.peer,
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
			"hash":   hex.EncodeToString(status.GetLastConnectionSettingsHash()),
			"status": strings.TrimPrefix(status.GetStatus().String(), "ConnectionSettingsStatuses_"),
			"error":  status.GetErrorMessage(),
		})
	}
	if statuses := message.GetPackageStatuses(); statuses != nil {
		part("package_statuses", packageFields(statuses))
	}
	if request := message.GetConnectionSettingsRequest(); request != nil {
		part("connection_settings_request", requestFields(request))
	}
	if available := message.GetAvailableComponents(); available != nil {
		part("available_components", fields{
			"hash": hex.EncodeToString(available.GetHash()), "components": componentFields(available.GetComponents()),
		})
	}
	if custom := message.GetCustomMessage(); custom != nil {
		part("custom_message", fields{
			"capability": custom.GetCapability(), "type": custom.GetType(), "data": hex.EncodeToString(custom.GetData()),
		})
	}
	if message.GetCustomCapabilities() != nil {
		part("custom_capabilities", append([]string{}, message.GetCustomCapabilities().GetCapabilities()...))
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

func packageFields(statuses *protobufs.PackageStatuses) fields {
	packages := fields{}
	for key, status := range statuses.GetPackages() {
		shown := fields{
			"name":            status.GetName(),
			"has_version":     status.GetAgentHasVersion(),
			"has_hash":        hex.EncodeToString(status.GetAgentHasHash()),
			"offered_version": status.GetServerOfferedVersion(),
			"offered_hash":    hex.EncodeToString(status.GetServerOfferedHash()),
			"status":          strings.TrimPrefix(status.GetStatus().String(), "PackageStatusEnum_"),
			"error":           status.GetErrorMessage(),
		}
		if details := status.GetDownloadDetails(); details != nil {
			shown["download_percent"] = details.GetDownloadPercent()
		}
		packages[key] = shown
	}
	return fields{
		"packages": packages,
		"hash":     hex.EncodeToString(statuses.GetServerProvidedAllPackagesHash()),
		"error":    statuses.GetErrorMessage(),
	}
}

// requestFields shows a certificate request as an independent reader of X.509 sees
// it.
func requestFields(wire *protobufs.ConnectionSettingsRequest) fields {
	request, err := readRequest(wire)
	if err != nil {
		return fields{"error": err.Error()}
	}
	return fields{"common_name": request.Subject.CommonName, "dns_names": append([]string{}, request.DNSNames...)}
}

func componentFields(components map[string]*protobufs.ComponentDetails) fields {
	shown := fields{}
	for name, component := range components {
		shown[name] = fields{
			"metadata": attributes(component.GetMetadata()), "components": componentFields(component.GetSubComponentMap()),
		}
	}
	return shown
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
		{"components", asksFor(message, protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)},
		{"connection_settings", message.GetConnectionSettings() != nil},
		{"custom_capabilities", message.GetCustomCapabilities() != nil},
		{"custom_message", message.GetCustomMessage() != nil},
		{"error_response", message.GetErrorResponse() != nil},
		{"full_state", asksFor(message, protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)},
		{"packages_available", message.GetPackagesAvailable() != nil},
		{"remote_config", message.GetRemoteConfig() != nil},
	} {
		if part.there {
			parts = append(parts, part.name)
		}
	}
	return parts
}

func asksFor(message *protobufs.ServerToAgent, flag protobufs.ServerToAgentFlags) bool {
	return message.GetFlags()&uint64(flag) != 0
}
