package main

import (
	"context"
	"net/http"

	"google.golang.org/protobuf/proto"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
)

func httpHandler(handler server.HTTPHandlerFunc) http.Handler { return http.HandlerFunc(handler) }

func (s *goServer) onConnecting(*http.Request) types.ConnectionResponse {
	return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{OnMessage: s.onMessage}}
}

func (s *goServer) onMessage(_ context.Context, _ types.Connection, message *protobufs.AgentToServer) *protobufs.ServerToAgent {
	s.received <- proto.Clone(message).(*protobufs.AgentToServer)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	reply := s.reply
	s.reply = nil
	if reply == nil {
		reply = &protobufs.ServerToAgent{}
	}
	reply.InstanceUid = message.GetInstanceUid()
	return reply
}
