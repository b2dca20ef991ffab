package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// goAgent is opamp-go's own client, so that these tests say nothing about any
// other.
type goAgent struct {
	client.OpAMPClient
	uid      uuid.UUID
	messages chan *types.MessageData
	commands chan *protobufs.ServerToAgentCommand
	settings chan *protobufs.OpAMPConnectionSettings
	failures chan error
	errors   chan *protobufs.ServerErrorResponse
	left     sync.Once
}

func connect(t *testing.T, url string, change func(*types.StartSettings)) *goAgent {
	t.Helper()
	a := &goAgent{
		uid:      uuid.New(),
		messages: make(chan *types.MessageData, 100),
		commands: make(chan *protobufs.ServerToAgentCommand, 100),
		settings: make(chan *protobufs.OpAMPConnectionSettings, 100),
		failures: make(chan error, 100),
		errors:   make(chan *protobufs.ServerErrorResponse, 100),
	}
	if strings.HasPrefix(url, "ws") {
		a.OpAMPClient = client.NewWebSocket(nil)
	} else {
		a.OpAMPClient = client.NewHTTP(nil)
	}
	capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat
	interval := 50 * time.Millisecond
	settings := types.StartSettings{
		OpAMPServerURL:    url,
		InstanceUid:       types.InstanceUid(a.uid),
		HeartbeatInterval: &interval,
		Callbacks: types.Callbacks{
			OnMessage: func(_ context.Context, message *types.MessageData) { a.messages <- message },
			OnCommand: func(_ context.Context, command *protobufs.ServerToAgentCommand) error {
				a.commands <- command
				return nil
			},
			OnOpampConnectionSettings: func(_ context.Context, settings *protobufs.OpAMPConnectionSettings) error {
				a.settings <- settings
				return nil
			},
			OnConnectFailed: func(_ context.Context, err error) { a.failures <- err },
			OnError:         func(_ context.Context, response *protobufs.ServerErrorResponse) { a.errors <- response },
			GetEffectiveConfig: func(context.Context) (*protobufs.EffectiveConfig, error) {
				return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{
					ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte("running: true\n")}},
				}}, nil
			},
		},
	}
	if change != nil {
		change(&settings)
	}
	name := &protobufs.KeyValue{
		Key: "service.name", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: "go"}},
	}
	for _, err := range []error{
		a.SetAgentDescription(&protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{name}}),
		a.SetHealth(&protobufs.ComponentHealth{Healthy: true}),
		a.SetCapabilities(&capabilities),
		a.Start(context.Background(), settings),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(a.leave)
	return a
}

// leave stops the agent once: a second Stop would wait for its whole context.
func (a *goAgent) leave() {
	a.left.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = a.Stop(ctx)
	})
}
