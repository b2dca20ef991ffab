package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"

	"opamp-rs/interop/opamp-go/internal/testcerts"
)

const patience = 10 * time.Second

func startServer(t *testing.T, arguments ...string) *server {
	t.Helper()
	o, err := parseOptions(append([]string{"--listen", "127.0.0.1:0"}, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.stop() })
	return s
}

// join connects an opamp-go client and hands over the configs that it is sent.
func join(t *testing.T, s *server, scheme string, config *tls.Config) <-chan *protobufs.AgentRemoteConfig {
	t.Helper()
	var agent client.OpAMPClient
	if strings.HasPrefix(scheme, "ws") {
		agent = client.NewWebSocket(nil)
	} else {
		agent = client.NewHTTP(nil)
	}
	configs := make(chan *protobufs.AgentRemoteConfig, 10)
	connected := make(chan struct{}, 1)
	capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig
	name := &protobufs.KeyValue{
		Key: "service.name", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: "go"}},
	}
	for _, err := range []error{
		agent.SetAgentDescription(&protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{name}}),
		agent.SetCapabilities(&capabilities),
		agent.Start(context.Background(), types.StartSettings{
			OpAMPServerURL: scheme + "://" + s.opamp.Addr().String() + "/v1/opamp",
			InstanceUid:    types.InstanceUid(uuid.New()),
			TLSConfig:      config,
			Callbacks: types.Callbacks{
				OnConnect: func(context.Context) { connected <- struct{}{} },
				OnMessage: func(_ context.Context, message *types.MessageData) {
					if message.RemoteConfig != nil {
						configs <- message.RemoteConfig
					}
				},
			},
		}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = agent.Stop(ctx)
	})
	select {
	case <-connected:
	case <-time.After(patience):
		t.Fatal("it did not connect")
	}
	return configs
}

// ask sends a request to the control port.
func ask(t *testing.T, s *server, method, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+s.controlAddress+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}

func awaitAgents(t *testing.T, s *server, expected int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, count := ask(t, s, http.MethodGet, "/agents")
		if count == fmt.Sprint(expected) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s agents instead of %d", count, expected)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAPushReachesEveryWebSocketAndIsANewConfigEachTime(t *testing.T) {
	pair := testcerts.SelfSigned(t, t.TempDir())
	for scheme, arguments := range map[string][]string{
		"ws": nil, "wss": {"--tls-cert", pair.CertFile, "--tls-key", pair.KeyFile},
	} {
		t.Run(scheme, func(t *testing.T) {
			s := startServer(t, arguments...)
			var trusted *tls.Config
			if scheme == "wss" {
				trusted = &tls.Config{RootCAs: pair.Roots}
			}
			agents := []<-chan *protobufs.AgentRemoteConfig{join(t, s, scheme, trusted), join(t, s, scheme, trusted)}
			awaitAgents(t, s, 2)
			var hashes [2][]byte
			for round := range hashes {
				if status, told := ask(t, s, http.MethodPost, "/push?bytes=4096"); status != http.StatusOK || told != "2" {
					t.Fatalf("answered %d %q", status, told)
				}
				for _, configs := range agents {
					select {
					case config := <-configs:
						if got := len(config.Config.ConfigMap[""].Body); got != 4096 {
							t.Fatalf("%d bytes", got)
						}
						hashes[round] = config.ConfigHash
					case <-time.After(patience):
						t.Fatal("no config came")
					}
				}
			}
			if bytes.Equal(hashes[0], hashes[1]) {
				t.Fatal("the second config has the hash of the first")
			}
		})
	}
}

func TestPollsAreAnsweredAndNotCounted(t *testing.T) {
	s := startServer(t)
	join(t, s, "http", nil)
	if _, count := ask(t, s, http.MethodGet, "/agents"); count != "0" {
		t.Fatalf("%s agents on a WebSocket", count)
	}
	if _, told := ask(t, s, http.MethodPost, "/push?bytes=1"); told != "0" {
		t.Fatalf("told %s", told)
	}
}

func TestWhatIsNoSizeIsRefused(t *testing.T) {
	s := startServer(t)
	for _, path := range []string{"/push", "/push?bytes=0", "/push?bytes=many", "/push?bytes=99999999999"} {
		if status, text := ask(t, s, http.MethodPost, path); status != http.StatusBadRequest || !strings.Contains(text, "bytes must be") {
			t.Fatalf("%s: %d %s", path, status, text)
		}
	}
}

func TestACertificateNeedsItsKey(t *testing.T) {
	if _, err := parseOptions([]string{"--tls-cert", "cert.pem"}); err == nil {
		t.Fatal("accepted")
	}
}
