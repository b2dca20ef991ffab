package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"

	"opamp-rs/interop/opamp-go/internal/lines"
	"opamp-rs/interop/opamp-go/internal/testcerts"
)

const patience = 10 * time.Second

// runningServer is a server under test with its events as a channel.
type runningServer struct {
	*server
	address string
	events  chan map[string]any
}

func start(t *testing.T, arguments ...string) *runningServer {
	t.Helper()
	o, err := parseOptions(append([]string{"-listen", "127.0.0.1:0"}, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	r := &runningServer{events: make(chan map[string]any, 1000)}
	if r.server, err = startServer(o, lines.NewEvents(eventWriter(r.events))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.stop() })
	r.address, _ = r.await(t, eventListening, nil)["address"].(string)
	return r
}

// await waits for an event of this name that fits; nil fits all.
func (r *runningServer) await(t *testing.T, name string, fits func(map[string]any) bool) map[string]any {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case event := <-r.events:
			if event["event"] == name && (fits == nil || fits(event)) {
				return event
			}
		case <-deadline:
			t.Fatalf("event %q did not come", name)
		}
	}
}

func (r *runningServer) do(t *testing.T, format string, values ...any) {
	t.Helper()
	if err := r.execute(fmt.Sprintf(format, values...)); err != nil {
		t.Fatal(err)
	}
}

type eventWriter chan map[string]any

func (w eventWriter) Write(line []byte) (int, error) {
	event := map[string]any{}
	if err := json.Unmarshal(line, &event); err != nil {
		return 0, err
	}
	w <- event
	return len(line), nil
}

func next[T any](t *testing.T, channel chan T, fits func(T) bool) T {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case value := <-channel:
			if fits == nil || fits(value) {
				return value
			}
		case <-deadline:
			t.Fatal("what was expected did not come")
		}
	}
}

func eachTransport(t *testing.T, test func(t *testing.T, s *runningServer, a *goAgent)) {
	for _, scheme := range []string{"ws", "http"} {
		t.Run(scheme, func(t *testing.T) {
			s := start(t)
			test(t, s, connect(t, scheme+"://"+s.address+"/v1/opamp", nil))
		})
	}
}

func has(part string) func(map[string]any) bool {
	return func(event map[string]any) bool { return event[part] != nil }
}

func TestWhatAnAgentReportsIsShown(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		first := s.await(t, eventMessage, has("agent_description"))
		if first["uid"] != a.uid.String() || !strings.Contains(fmt.Sprint(first["capabilities"]), "ReportsHealth") {
			t.Errorf("%v", first)
		}
		text, _ := json.Marshal(first)
		for _, part := range []string{
			`"identifying":{"service.name":"go"}`, `"healthy":true`, `"effective_config":{"":"running: true\n"}`,
		} {
			if !strings.Contains(string(text), part) {
				t.Errorf("no %s in %s", part, text)
			}
		}
	})
}

func TestAnOfferIsMadeOnceAndNotToWhoHasIt(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		s.await(t, eventMessage, nil)
		s.do(t, `{"do":"offer","files":{"":"a: 1\n","b.yaml":"b: 2\n"},"hash":"0102"}`)
		offered := next(t, a.messages, func(m *types.MessageData) bool { return m.RemoteConfig != nil }).RemoteConfig
		if len(offered.GetConfig().GetConfigMap()) != 2 || !bytes.Equal(offered.GetConfigHash(), []byte{1, 2}) {
			t.Errorf("%v", offered)
		}
		err := a.SetRemoteConfigStatus(&protobufs.RemoteConfigStatus{
			LastRemoteConfigHash: []byte{1, 2},
			Status:               protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED,
			ErrorMessage:         "no",
		})
		if err != nil {
			t.Fatal(err)
		}
		status := s.await(t, eventMessage, has("remote_config_status"))["remote_config_status"]
		if text, _ := json.Marshal(status); string(text) != `{"error":"no","hash":"0102","status":"FAILED"}` {
			t.Errorf("%s", text)
		}
		s.do(t, `{"do":"offer","files":{"":"a: 1\n","b.yaml":"b: 2\n"},"hash":"0102"}`)
		s.do(t, `{"do":"full_state"}`)
		sent := s.await(t, eventSent, nil)
		if fmt.Sprint(sent["parts"]) != "[full_state]" {
			t.Errorf("%v", sent)
		}
		s.do(t, `{"do":"offer_again"}`)
		next(t, a.messages, func(m *types.MessageData) bool { return m.RemoteConfig != nil })
	})
}

func TestAnOfferFromTheStartIsMadeToWhoLacksIt(t *testing.T) {
	s := start(t, "-offer", `{"":"a: 1\n"}`)
	a := connect(t, "ws://"+s.address+"/v1/opamp", nil)
	offered := next(t, a.messages, func(m *types.MessageData) bool { return m.RemoteConfig != nil }).RemoteConfig
	again := connect(t, "ws://"+s.address+"/v1/opamp", func(settings *types.StartSettings) {
		settings.RemoteConfigStatus = &protobufs.RemoteConfigStatus{
			LastRemoteConfigHash: offered.GetConfigHash(),
			Status:               protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
		}
	})
	s.await(t, eventMessage, func(event map[string]any) bool { return event["uid"] == again.uid.String() })
	s.do(t, `{"do":"full_state","agent":%q}`, again.uid)
	sent := s.await(t, eventSent, func(event map[string]any) bool { return event["uid"] == again.uid.String() })
	if fmt.Sprint(sent["parts"]) != "[full_state]" {
		t.Errorf("%v", sent)
	}
}

func TestCommandsReachTheAgent(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		s.await(t, eventMessage, nil)
		s.do(t, `{"do":"restart"}`)
		next(t, a.commands, nil)
		s.do(t, `{"do":"heartbeat","seconds":7}`)
		if offered := next(t, a.settings, nil); offered.GetHeartbeatIntervalSeconds() != 7 {
			t.Errorf("%v", offered)
		}
		s.await(t, eventMessage, has("connection_settings_status"))
	})
}

func TestAnAssignedUIDIsWhoTheAgentIsFromThenOn(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		s.await(t, eventMessage, nil)
		uid := uuid.New()
		s.do(t, `{"do":"assign","agent":%q,"uid":%q}`, a.uid, uid)
		message := next(t, a.messages, func(m *types.MessageData) bool { return m.AgentIdentification != nil })
		if !bytes.Equal(message.AgentIdentification.GetNewInstanceUid(), uid[:]) {
			t.Errorf("%v", message.AgentIdentification)
		}
		s.await(t, eventMessage, func(event map[string]any) bool { return event["uid"] == uid.String() })
		if err := s.execute(fmt.Sprintf(`{"do":"restart","agent":%q}`, a.uid)); err == nil {
			t.Error("the old uid is still known")
		}
		s.do(t, `{"do":"restart","agent":%q}`, uid)
		next(t, a.commands, nil)
	})
}

func TestFullStateIsReportedOnRequest(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		s.await(t, eventMessage, has("agent_description"))
		s.do(t, `{"do":"full_state"}`)
		s.await(t, eventMessage, has("agent_description"))
	})
}

func TestAnAgentThatTheServerForgotIsAskedForItsFullState(t *testing.T) {
	s := start(t)
	a := connect(t, "http://"+s.address+"/v1/opamp", nil)
	s.await(t, eventMessage, has("agent_description"))
	s.mutex.Lock()
	delete(s.agents, a.uid)
	s.mutex.Unlock()
	s.await(t, eventMessage, has("agent_description"))
}

func TestRefusalsComeBeforeTheUpgradeAndEnd(t *testing.T) {
	s := start(t)
	s.do(t, `{"do":"refuse","status":503,"headers":{"Retry-After":"7"},"times":1}`)
	answer, err := http.Post("http://"+s.address+"/v1/opamp", "application/x-protobuf", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") != "7" {
		t.Errorf("%v", answer)
	}
	s.await(t, eventRefused, nil)
	connect(t, "ws://"+s.address+"/v1/opamp", nil)
	s.await(t, eventMessage, nil)
}

func TestUnavailableSaysWhenToComeBack(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *runningServer, a *goAgent) {
		s.await(t, eventMessage, nil)
		for _, after := range []string{"", `,"retry_after_ms":1500`} {
			s.do(t, `{"do":"unavailable","times":1%s}`, after)
			if err := a.SetHealth(&protobufs.ComponentHealth{LastError: "x" + after}); err != nil {
				t.Fatal(err)
			}
			response := next(t, a.errors, nil)
			if response.GetType() != protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable {
				t.Errorf("%v", response)
			}
			if (response.GetRetryInfo() != nil) != (after != "") {
				t.Errorf("%v", response)
			}
		}
	})
}

func TestEndsOfAWebSocketAreShown(t *testing.T) {
	s := start(t)
	a := connect(t, "ws://"+s.address+"/v1/opamp", nil)
	s.await(t, eventMessage, nil)
	s.do(t, `{"do":"disconnect"}`)
	// The agent may be back before the end of its first connection is shown.
	closed, back := false, false
	for !closed || !back {
		event := next(t, s.events, nil)
		closed = closed || event["event"] == eventConnectionClosed && event["connection"] == 1.0
		back = back || event["event"] == eventMessage && event["connection"] == 2.0
	}
	a.leave()
	s.await(t, eventMessage, has("agent_disconnect"))
	s.await(t, eventConnectionClosed, nil)
}

func TestATokenIsAskedFor(t *testing.T) {
	s := start(t, "-token", "sesame")
	connect(t, "ws://"+s.address+"/v1/opamp", nil)
	s.await(t, eventRefused, func(event map[string]any) bool { return event["status"] == 401.0 })
	connect(t, "http://"+s.address+"/v1/opamp", func(settings *types.StartSettings) {
		settings.Header = http.Header{"Authorization": {"Bearer sesame"}}
	})
	s.await(t, eventMessage, nil)
}

func TestMutualTLSLetsInWhoHasACertificate(t *testing.T) {
	pair := testcerts.SelfSigned(t, t.TempDir())
	s := start(t, "-cert", pair.CertFile, "-key", pair.KeyFile, "-client-ca", pair.CertFile)
	for _, scheme := range []string{"wss", "https"} {
		connect(t, scheme+"://"+s.address+"/v1/opamp", func(settings *types.StartSettings) {
			settings.TLSConfig = &tls.Config{RootCAs: pair.Roots, Certificates: []tls.Certificate{pair.TLS}}
		})
		if scheme == "wss" {
			connected := s.await(t, eventConnected, nil)
			if connected["peer"] != "test" {
				t.Errorf("%v", connected)
			}
		}
		s.await(t, eventMessage, nil)
		stranger := connect(t, scheme+"://"+s.address+"/v1/opamp", func(settings *types.StartSettings) {
			settings.TLSConfig = &tls.Config{RootCAs: pair.Roots}
		})
		next(t, stranger.failures, nil)
	}
}

func TestMistakesAreErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, arguments := range [][]string{
		{"-cert", missing},
		{"-cert", missing, "-key", missing},
		{"-client-ca", missing},
		{"-issuer-cert", missing},
		{"-issuer-cert", missing, "-issuer-key", missing},
		{"-offer", "[]"},
		{"-listen", "nowhere"},
		{"surplus"},
	} {
		if err := run(arguments, strings.NewReader(""), new(bytes.Buffer)); err == nil {
			t.Errorf("%q was accepted", arguments)
		}
	}
	s := start(t)
	for _, line := range []string{
		`{`, `{"do":"dance"}`, `{"do":"offer"}`, `{"do":"offer","files":{"":"x"},"hash":"xy"}`, `{"do":"assign","uid":"x"}`,
		`{"do":"settings"}`, `{"do":"settings","opamp":{"endpoint":"ws://x"},"hash":"xy"}`, `{"do":"custom","data":"xy"}`,
		`{"do":"packages","packages":{"p":{"content_hash":"xy"}}}`, `{"do":"packages","packages":{"p":{"signature":"xy"}}}`,
		`{"do":"refuse","status":200,"times":1}`, `{"do":"restart","agent":"nobody"}`, `{"do":"restart","surplus":1}`,
	} {
		if err := s.execute(line); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
}

func TestQuitEndsTheProgram(t *testing.T) {
	out := new(bytes.Buffer)
	input := strings.NewReader("{\"do\":\"dance\"}\n{\"do\":\"heartbeat\",\"seconds\":1}\n{\"do\":\"quit\"}\n")
	if err := run([]string{"-listen", "127.0.0.1:0"}, input, out); err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{eventListening, eventCommandRefused, eventCommandDone, eventStopped} {
		if !strings.Contains(out.String(), `"event":"`+event+`"`) {
			t.Errorf("no %s in %s", event, out)
		}
	}
}
