package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"

	"opamp-rs/interop/opamp-go/internal/lines"
)

const patience = 10 * time.Second

// goServer is opamp-go's own server, so that these tests say something about the
// agent and nothing about any other server.
type goServer struct {
	url      string // without scheme
	received chan *protobufs.AgentToServer
	mutex    sync.Mutex
	reply    *protobufs.ServerToAgent
}

func startGoServer(t *testing.T) *goServer {
	t.Helper()
	return startGoServerWith(t, nil)
}

func startGoServerWith(t *testing.T, config *tls.Config) *goServer {
	t.Helper()
	s := &goServer{received: make(chan *protobufs.AgentToServer, 100)}
	opamp := server.New(nil)
	handler, connContext, err := opamp.Attach(server.Settings{Callbacks: types.Callbacks{
		OnConnecting: s.onConnecting,
	}})
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewUnstartedServer(nil)
	listener.Config.Handler = httpHandler(handler)
	listener.Config.ConnContext = connContext
	if listener.TLS = config; config == nil {
		listener.Start()
	} else {
		listener.StartTLS()
	}
	t.Cleanup(listener.Close)
	s.url = listener.Listener.Addr().String() + "/v1/opamp"
	return s
}

func (s *goServer) answerOnce(reply *protobufs.ServerToAgent) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.reply = reply
}

// next waits for a message that fits.
func (s *goServer) next(t *testing.T, fits func(*protobufs.AgentToServer) bool) *protobufs.AgentToServer {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case message := <-s.received:
			if fits(message) {
				return message
			}
		case <-deadline:
			t.Fatal("the expected message did not arrive")
		}
	}
}

// runningAgent is an agent under test with its events as a channel.
type runningAgent struct {
	commands chan string
	events   chan map[string]any
	done     chan error
}

func startAgent(t *testing.T, arguments ...string) *runningAgent {
	t.Helper()
	o, err := parseOptions(append([]string{"-heartbeat", "50ms"}, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	r := &runningAgent{commands: make(chan string), events: make(chan map[string]any, 1000), done: make(chan error, 1)}
	agent, err := newAgent(o, lines.NewEvents(eventWriter(r.events)))
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- agent.run(context.Background(), r.commands) }()
	t.Cleanup(func() { r.quit(t) })
	return r
}

func (r *runningAgent) quit(t *testing.T) {
	t.Helper()
	if r.done == nil {
		return
	}
	select {
	case r.commands <- "quit":
	case err := <-r.done:
		t.Fatalf("the agent ended by itself: %v", err)
	}
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	r.done = nil
}

func (r *runningAgent) await(t *testing.T, name string) map[string]any {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case event := <-r.events:
			if event["event"] == name {
				return event
			}
		case <-deadline:
			t.Fatalf("event %q did not come", name)
		}
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

func offerOf(hash string, files map[string]string) *protobufs.ServerToAgent {
	wire := &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{}}
	for name, body := range files {
		wire.ConfigMap[name] = &protobufs.AgentConfigFile{Body: []byte(body), ContentType: "text/yaml"}
	}
	return &protobufs.ServerToAgent{RemoteConfig: &protobufs.AgentRemoteConfig{Config: wire, ConfigHash: []byte(hash)}}
}

func eachTransport(t *testing.T, test func(t *testing.T, s *goServer, url string)) {
	for _, scheme := range []string{"ws", "http"} {
		t.Run(scheme, func(t *testing.T) {
			s := startGoServer(t)
			test(t, s, scheme+"://"+s.url)
		})
	}
}

func TestFirstMessageCarriesTheFullState(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		startAgent(t, "-url", url)
		first := s.next(t, func(*protobufs.AgentToServer) bool { return true })
		if len(first.GetInstanceUid()) != 16 || first.GetAgentDescription() == nil || !first.GetHealth().GetHealthy() {
			t.Errorf("incomplete first message: %v", first)
		}
		if got := first.GetCapabilities(); got != uint64(capabilities) {
			t.Errorf("capabilities %#x", got)
		}
		if _, found := first.GetEffectiveConfig().GetConfigMap().GetConfigMap()[""]; !found {
			t.Error("the effective config lacks the file with the empty name")
		}
	})
}

func TestTwoFilesAreAppliedAndReported(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url)
		s.answerOnce(offerOf("h1", map[string]string{"": "a: 1\n", "extra.yaml": "b: 2\n"}))
		effective := s.next(t, func(m *protobufs.AgentToServer) bool {
			return len(m.GetEffectiveConfig().GetConfigMap().GetConfigMap()) == 2
		})
		if body := effective.GetEffectiveConfig().GetConfigMap().GetConfigMap()[""].GetBody(); string(body) != "a: 1\n" {
			t.Errorf("body %q", body)
		}
		status := r.await(t, eventRemoteConfigStatus)
		if status["status"] != "APPLIED" || status["hash"] != "6831" {
			t.Errorf("%v", status)
		}
	})
}

func TestMarkedConfigFailsAndNothingChanges(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url)
		s.answerOnce(offerOf("h2", map[string]string{"": "a: 1\n", "bad.yaml": "# reject\n"}))
		status := s.next(t, func(m *protobufs.AgentToServer) bool {
			return m.GetRemoteConfigStatus().GetStatus() == protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
		}).GetRemoteConfigStatus()
		if !strings.Contains(status.GetErrorMessage(), "bad.yaml") || string(status.GetLastRemoteConfigHash()) != "h2" {
			t.Errorf("%v", status)
		}
		r.await(t, eventRemoteConfigStatus)
		s.answerOnce(&protobufs.ServerToAgent{Flags: uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)})
		effective := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetEffectiveConfig() != nil })
		if files := effective.GetEffectiveConfig().GetConfigMap().GetConfigMap(); len(files) != 1 {
			t.Errorf("%d files are reported after a failure", len(files))
		}
	})
}

func TestRestartCommandBeginsANewLife(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url)
		before := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetHealth() != nil })
		s.answerOnce(&protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{
			Type: protobufs.CommandType_CommandType_Restart,
		}})
		r.await(t, eventRestarted)
		after := s.next(t, func(m *protobufs.AgentToServer) bool {
			return m.GetHealth().GetStartTimeUnixNano() > before.GetHealth().GetStartTimeUnixNano()
		})
		if !bytes.Equal(after.GetInstanceUid(), before.GetInstanceUid()) {
			t.Error("the uid changed")
		}
	})
}

func TestFullStateRequestIsAnsweredAndShown(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		r := startAgent(t, "-url", url)
		s.answerOnce(&protobufs.ServerToAgent{Flags: uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)})
		r.await(t, eventFullStateRequested)
		s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetSequenceNum() > 0 && m.GetAgentDescription() != nil })
	})
}

func TestStateSurvivesAnewProcess(t *testing.T) {
	eachTransport(t, func(t *testing.T, s *goServer, url string) {
		path := filepath.Join(t.TempDir(), "state.json")
		first := startAgent(t, "-url", url, "-state", path)
		uid := first.await(t, eventStarted)["uid"]
		s.answerOnce(offerOf("h3", map[string]string{"": "kept: true\n"}))
		first.await(t, eventRemoteConfigStatus)
		first.quit(t)
		for len(s.received) > 0 {
			<-s.received
		}

		second := startAgent(t, "-url", url, "-state", path)
		if got := second.await(t, eventStarted)["uid"]; got != uid {
			t.Errorf("uid %v became %v", uid, got)
		}
		report := s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetAgentDescription() != nil })
		if status := report.GetRemoteConfigStatus(); string(status.GetLastRemoteConfigHash()) != "h3" ||
			status.GetStatus() != protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED {
			t.Errorf("%v", status)
		}
		if body := report.GetEffectiveConfig().GetConfigMap().GetConfigMap()[""].GetBody(); string(body) != "kept: true\n" {
			t.Errorf("body %q", body)
		}
	})
}

func TestCommandsChangeWhatIsReported(t *testing.T) {
	s := startGoServer(t)
	r := startAgent(t, "-url", "ws://"+s.url)
	r.commands <- "health bad disk full"
	s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetHealth().GetLastError() == "disk full" })
	r.commands <- "health ok"
	s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetHealth().GetHealthy() })
	r.commands <- "describe zone north"
	s.next(t, func(m *protobufs.AgentToServer) bool {
		for _, pair := range m.GetAgentDescription().GetNonIdentifyingAttributes() {
			if pair.GetKey() == "zone" && pair.GetValue().GetStringValue() == "north" {
				return true
			}
		}
		return false
	})
	r.commands <- "dance"
	r.await(t, eventCommandRefused)
}

func TestHealthTimeMovesInEveryReport(t *testing.T) {
	s := startGoServer(t)
	startAgent(t, "-url", "ws://"+s.url, "-health-interval", "10ms")
	healthy := func(m *protobufs.AgentToServer) bool { return m.GetHealth() != nil }
	first := s.next(t, healthy).GetHealth().GetStatusTimeUnixNano()
	if second := s.next(t, healthy).GetHealth().GetStatusTimeUnixNano(); second <= first {
		t.Errorf("%d, then %d", first, second)
	}
}

func TestQuitSendsAgentDisconnectOverWebSocket(t *testing.T) {
	s := startGoServer(t)
	r := startAgent(t, "-url", "ws://"+s.url)
	// A client that is stopped between its upgrade and its first message says neither that nor goodbye.
	s.next(t, func(*protobufs.AgentToServer) bool { return true })
	r.quit(t)
	s.next(t, func(m *protobufs.AgentToServer) bool { return m.GetAgentDisconnect() != nil })
}

func TestMistakesInFlagsAreErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	broken := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{
		{"-url", "ftp://localhost/v1/opamp"},
		{"-url", "wss://localhost/v1/opamp", "-ca", missing},
		{"-url", "ws://localhost/v1/opamp", "-ca", missing},
		{"-cert", missing},
		{"-uid", "not-a-uuid"},
		{"-header", "no-equals-sign"},
		{"-component", "no-equals-sign"},
		{"-packages", broken},
		{"-state", broken},
		{"surplus"},
	} {
		if err := run(arguments, strings.NewReader(""), new(bytes.Buffer)); err == nil {
			t.Errorf("%q was accepted", arguments)
		}
	}
}
