package main

import "opamp-rs/interop/opamp-go/internal/lines"

// Names of events, the value of the key "event" in each line of output.
const (
	eventStarted             = "started"              // uid, url: the client runs; it is not connected yet
	eventConnected           = "connected"            // a WebSocket was opened, or an HTTP request answered 200
	eventConnectFailed       = "connect_failed"       // error
	eventFullStateRequested  = "full_state_requested" // the server set ReportFullState
	eventRemoteConfig        = "remote_config"        // hash, files: an offer arrived
	eventRemoteConfigStatus  = "remote_config_status" // hash, status (APPLIED or FAILED), error
	eventRestartCommand      = "restart_command"      // the server asked for a restart
	eventRestarted           = "restarted"            // start_time_unix_nano of the new life
	eventConnectionSettings  = "connection_settings"  // hash, parts: an offer of settings for own telemetry or other connections
	eventSettingsOffered     = "settings_offered"     // hash, endpoint, error: OpAMP settings arrived; with an error they are not tried
	eventSettingsApplied     = "settings_applied"     // hash: a server answered over them; they are kept
	eventSettingsFailed      = "settings_failed"      // hash, error: none did; those before are used again
	eventPackagesOffered     = "packages_offered"     // hash, names
	eventPackagesSynced      = "packages_synced"      // hash, names: opamp-go has finished with an offer; names are the packages there now
	eventCustomCapabilities  = "custom_capabilities"  // names: what the server announced
	eventCustomMessage       = "custom_message"       // capability, type, data in hex
	eventErrorResponse       = "error_response"       // type, error, retry_after_ns: the server could not use a message
	eventRefusedByClient     = "refused_by_client"    // error: the opamp-go client refused a call of ours
	eventAgentIdentification = "agent_identification" // uid assigned by the server
	eventCommandDone         = "command_done"         // command: a line of stdin took effect
	eventCommandRefused      = "command_refused"      // command, error
	eventStopped             = "stopped"              // the client left in order
)

type fields = lines.Fields

type events = lines.Events
