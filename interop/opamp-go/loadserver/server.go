package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	opamp "github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
)

const capabilities = protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus |
	protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig |
	protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig

const (
	// pushMax bounds the size of a config that is pushed.
	pushMax = 64 << 20
	// senders is how many agents a push sends to at once.
	senders = 2
	// stopTimeout bounds the wait for requests that are being answered.
	stopTimeout = 2 * time.Second
)

// server is a running server. opamp-go calls back from one goroutine per
// connection.
type server struct {
	opamp          opamp.OpAMPServer
	control        *http.Server
	controlAddress string
	pushes         atomic.Uint64

	mutex  sync.Mutex // guards what follows
	agents map[*agent]struct{}
}

// agent is a connection with what a push needs: a WebSocket that has said whose
// it is.
type agent struct {
	polls bool   // it is one request over plain HTTP, which has nothing to send on
	uid   []byte // nil until the first message
	wire  types.Connection
}

func start(o options) (*server, error) {
	config, err := newTLS(o)
	if err != nil {
		return nil, err
	}
	// Without a logger: every agent that drops its connection would cost a line.
	s := &server{opamp: opamp.New(nil), agents: map[*agent]struct{}{}}
	listener, err := net.Listen("tcp", o.control)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	s.controlAddress = listener.Addr().String()
	err = s.opamp.Start(opamp.StartSettings{
		Settings:       opamp.Settings{Callbacks: types.Callbacks{OnConnecting: s.onConnecting}},
		ListenEndpoint: o.listen,
		TLSConfig:      config,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /push", s.handlePush)
	mux.HandleFunc("GET /agents", s.handleAgents)
	s.control = &http.Server{Handler: mux}
	go func() { _ = s.control.Serve(listener) }() // ends with stop
	return s, nil
}

// stop leaves WebSockets to the end of the process: opamp-go does not close them.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return errors.Join(s.control.Close(), s.opamp.Stop(ctx))
}

func (s *server) onConnecting(request *http.Request) types.ConnectionResponse {
	a := &agent{polls: request.Header.Get("Upgrade") == ""}
	return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
		OnMessage: func(_ context.Context, wire types.Connection, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
			if a.uid == nil && !a.polls {
				s.add(a, wire, message.GetInstanceUid())
			}
			if message.GetAgentDisconnect() != nil {
				return nil // over WebSocket nobody reads an answer to a goodbye
			}
			return &protobufs.ServerToAgent{InstanceUid: message.GetInstanceUid(), Capabilities: uint64(capabilities)}
		},
		OnConnectionClose: func(types.Connection) { s.remove(a) },
	}}
}

func (s *server) add(a *agent, wire types.Connection, uid []byte) {
	a.uid, a.wire = append([]byte{}, uid...), wire
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.agents[a] = struct{}{}
}

func (s *server) remove(a *agent) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.agents, a)
}

func (s *server) connected() []*agent {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	all := make([]*agent, 0, len(s.agents))
	for a := range s.agents {
		all = append(all, a)
	}
	return all
}

func (s *server) handleAgents(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, len(s.connected()))
}

func (s *server) handlePush(w http.ResponseWriter, request *http.Request) {
	size, err := strconv.Atoi(request.URL.Query().Get("bytes"))
	if err != nil || size < 1 || size > pushMax {
		http.Error(w, fmt.Sprintf("bytes must be a number from 1 to %d", pushMax), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, s.push(size))
}

// push sends one config to every agent and returns how many took it.
func (s *server) push(size int) int64 {
	hash := make([]byte, 32)
	binary.BigEndian.PutUint64(hash, s.pushes.Add(1))
	body := make([]byte, size)
	for at := range body {
		body[at] = "receivers: {otlp: {}}\n"[at%22]
	}
	offer := &protobufs.AgentRemoteConfig{
		ConfigHash: hash,
		Config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
			"": {Body: body, ContentType: "text/yaml"},
		}},
	}
	var told atomic.Int64
	work := make(chan *agent)
	var done sync.WaitGroup
	for range senders {
		done.Add(1)
		go func() {
			defer done.Done()
			for a := range work {
				message := &protobufs.ServerToAgent{
					InstanceUid: a.uid, Capabilities: uint64(capabilities), RemoteConfig: offer,
				}
				if err := a.wire.Send(context.Background(), message); err == nil {
					told.Add(1)
				}
			}
		}()
	}
	for _, a := range s.connected() {
		work <- a
	}
	close(work)
	done.Wait()
	return told.Load()
}
