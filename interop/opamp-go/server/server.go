package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	opamp "github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"

	"opamp-rs/interop/opamp-go/internal/lines"
)

const capabilities = protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus |
	protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig |
	protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig |
	protobufs.ServerCapabilities_ServerCapabilities_OffersConnectionSettings |
	protobufs.ServerCapabilities_ServerCapabilities_OffersPackages |
	protobufs.ServerCapabilities_ServerCapabilities_AcceptsPackagesStatus |
	protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest

// server is a running server. opamp-go calls back from one goroutine per
// connection.
type server struct {
	opamp  opamp.OpAMPServer
	events *lines.Events
	token  string
	files  *fileServer // nil if it serves none
	issuer *issuer     // nil if it issues no certificates

	mutex          sync.Mutex // guards what follows
	agents         map[uuid.UUID]*agent
	offer          *offer
	refusal        *refusal
	unavailable    *unavailable
	noCertificates string // why requests are refused; empty if they are not
	connections    int
}

// refusal is how the next requests are turned away.
type refusal struct {
	status  int
	headers map[string]string
	times   int
}

// unavailable is how the next messages are answered.
type unavailable struct {
	retryAfter *protobufs.RetryInfo
	times      int
}

func startServer(o options, events *lines.Events) (*server, error) {
	config, err := newTLS(o)
	if err != nil {
		return nil, err
	}
	s := &server{
		opamp:  opamp.New(stderrLogger{}),
		events: events,
		token:  o.token,
		agents: map[uuid.UUID]*agent{},
	}
	if o.offer != "" {
		if s.offer, err = parseOffer(o.offer); err != nil {
			return nil, fmt.Errorf("-offer: %w", err)
		}
	}
	if s.issuer, err = newIssuer(o.issuerCertFile, o.issuerKeyFile); err != nil {
		return nil, fmt.Errorf("-issuer-cert: %w", err)
	}
	if s.files, err = startFiles(o.files, o.filesToken); err != nil {
		return nil, fmt.Errorf("-files: %w", err)
	}
	err = s.opamp.Start(opamp.StartSettings{
		Settings: opamp.Settings{
			Callbacks: types.Callbacks{OnConnecting: s.onConnecting}, CustomCapabilities: o.custom,
		},
		ListenEndpoint: o.listen,
		TLSConfig:      config,
	})
	if err != nil {
		return nil, err
	}
	about := fields{"address": s.opamp.Addr().String()}
	if s.files != nil {
		about["files"] = s.files.address
	}
	events.Emit(eventListening, about)
	return s, nil
}

// stop leaves WebSockets to the end of the process: opamp-go does not close them.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := errors.Join(s.opamp.Stop(ctx), s.files.stop(ctx)); err != nil {
		return err
	}
	s.events.Emit(eventStopped, nil)
	return nil
}

func (s *server) onConnecting(request *http.Request) types.ConnectionResponse {
	if status, headers := s.refuses(request); status != 0 {
		s.events.Emit(eventRefused, fields{"status": status})
		return types.ConnectionResponse{HTTPStatusCode: status, HTTPResponseHeader: headers}
	}
	connection := &connection{peer: commonName(request), endpoint: endpointOf(request)}
	return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
		OnConnected: func(_ context.Context, wire types.Connection) { s.onConnected(connection, request, wire) },
		OnMessage: func(_ context.Context, _ types.Connection, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
			return s.onMessage(connection, message)
		},
		OnConnectionClose: func(types.Connection) { s.onConnectionClose(connection) },
		OnReadMessageError: func(_ types.Connection, _ int, _ []byte, err error) {
			s.events.Emit(eventReadError, fields{"connection": connection.number, "error": err.Error()})
		},
		OnMessageResponseError: func(_ types.Connection, message *protobufs.ServerToAgent, err error) {
			s.sendFailed(connection, message, err)
		},
	}}
}

// refuses returns the status of a refusal, or 0.
func (s *server) refuses(request *http.Request) (int, map[string]string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.token != "" && request.Header.Get("Authorization") != "Bearer "+s.token {
		return http.StatusUnauthorized, nil
	}
	if s.refusal == nil || s.refusal.times == 0 {
		return 0, nil
	}
	s.refusal.times--
	return s.refusal.status, s.refusal.headers
}

// onConnected is called for each WebSocket, and for each request over plain HTTP.
func (s *server) onConnected(c *connection, request *http.Request, wire types.Connection) {
	if request.Header.Get("Upgrade") == "" {
		return
	}
	s.mutex.Lock()
	s.connections++
	c.number, c.wire = s.connections, wire
	s.mutex.Unlock()
	s.events.Emit(eventConnected, fields{"connection": c.number, "peer": c.peer})
}

func (s *server) onMessage(c *connection, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
	uid, err := uuid.FromBytes(message.GetInstanceUid())
	if err != nil {
		return &protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{
			Type:         protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest,
			ErrorMessage: "instance_uid: " + err.Error(),
		}}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	reply := &protobufs.ServerToAgent{InstanceUid: message.GetInstanceUid(), Capabilities: uint64(capabilities)}
	if s.unavailable != nil && s.unavailable.times > 0 {
		s.unavailable.times--
		s.events.Emit(eventUnavailable, fields{"connection": c.number, "uid": uid.String()})
		reply.ErrorResponse = &protobufs.ServerErrorResponse{
			Type:         protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable,
			ErrorMessage: "overloaded",
		}
		if s.unavailable.retryAfter != nil {
			reply.ErrorResponse.Details = &protobufs.ServerErrorResponse_RetryInfo{RetryInfo: s.unavailable.retryAfter}
		}
		return reply
	}
	s.events.Emit(eventMessage, messageFields(c, uid, message))
	known := s.agents[uid]
	stranger := known == nil && message.GetAgentDescription() == nil
	if known == nil {
		known = &agent{uid: uid}
		s.agents[uid] = known
	}
	known.heard(c, message)
	if message.GetAgentDisconnect() != nil {
		return nil // over WebSocket nobody reads an answer to a goodbye
	}
	if stranger {
		// It knows this server, which has forgotten it.
		reply.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	} else {
		known.compose(reply, s.offer)
	}
	if request := message.GetConnectionSettingsRequest(); request != nil {
		s.answerRequest(c, request, reply)
	}
	s.tellSent(c, known, reply)
	s.rename(known, reply)
	return reply
}

func (s *server) onConnectionClose(c *connection) {
	if c.wire == nil {
		return
	}
	s.mutex.Lock()
	for _, known := range s.agents {
		if known.connection == c {
			known.connection = nil
		}
	}
	s.mutex.Unlock()
	s.events.Emit(eventConnectionClosed, fields{"connection": c.number})
}

func (s *server) tellSent(c *connection, to *agent, message *protobufs.ServerToAgent) {
	if parts := sentParts(message); len(parts) > 0 {
		s.events.Emit(eventSent, fields{"connection": c.number, "uid": to.uid.String(), "parts": parts})
	}
}

func (s *server) sendFailed(c *connection, message *protobufs.ServerToAgent, err error) {
	uid, _ := uuid.FromBytes(message.GetInstanceUid())
	s.events.Emit(eventSendFailed, fields{"connection": c.number, "uid": uid.String(), "error": err.Error()})
}

// rename moves the record of an agent that is being told its new uid.
func (s *server) rename(known *agent, message *protobufs.ServerToAgent) {
	assigned, err := uuid.FromBytes(message.GetAgentIdentification().GetNewInstanceUid())
	if err != nil {
		return // it is told nothing of the kind
	}
	delete(s.agents, known.uid)
	known.uid = assigned
	s.agents[assigned] = known
}

func commonName(request *http.Request) string {
	if request.TLS == nil || len(request.TLS.PeerCertificates) == 0 {
		return ""
	}
	return request.TLS.PeerCertificates[0].Subject.CommonName
}

// stderrLogger shows what the opamp-go server says about errors; stdout belongs
// to the events.
type stderrLogger struct{}

func (stderrLogger) Debugf(context.Context, string, ...any) {}

func (stderrLogger) Errorf(_ context.Context, format string, v ...any) {
	fmt.Fprintf(os.Stderr, "opamp-go: "+format+"\n", v...)
}
