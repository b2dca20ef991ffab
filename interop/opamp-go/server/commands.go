package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/open-telemetry/opamp-go/protobufs"
)

var errQuit = errors.New("quit")

// command is one line of stdin.
type command struct {
	Do           string            `json:"do"`
	Agent        string            `json:"agent"`
	Files        map[string]string `json:"files"`
	Hash         string            `json:"hash"`
	UID          string            `json:"uid"`
	Seconds      uint64            `json:"seconds"`
	Status       int               `json:"status"`
	Headers      map[string]string `json:"headers"`
	RetryAfterMS *uint64           `json:"retry_after_ms"`
	Times        int               `json:"times"`

	OpAMP      *target                   `json:"opamp"`
	OwnMetrics *target                   `json:"own_metrics"`
	OwnTraces  *target                   `json:"own_traces"`
	OwnLogs    *target                   `json:"own_logs"`
	Others     map[string]*target        `json:"others"`
	Packages   map[string]offeredPackage `json:"packages"`

	Names      []string `json:"names"`
	Capability string   `json:"capability"`
	Type       string   `json:"type"`
	Data       string   `json:"data"`
	Text       string   `json:"text"`
}

func (s *server) execute(line string) error {
	var c command
	decoder := json.NewDecoder(strings.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return err
	}
	switch c.Do {
	case "offer":
		wanted, err := newOffer(c.Files, c.Hash)
		if err != nil {
			return err
		}
		s.mutex.Lock()
		s.offer = wanted
		s.mutex.Unlock()
		return s.tell(c.Agent, func(*agent, *protobufs.ServerToAgent) {})
	case "offer_again":
		return s.tell(c.Agent, func(to *agent, message *protobufs.ServerToAgent) {
			if s.offer != nil {
				to.give(message, s.offer)
			}
		})
	case "restart":
		var config *protobufs.AgentRemoteConfig
		if c.Files != nil {
			with, err := newOffer(c.Files, c.Hash)
			if err != nil {
				return err
			}
			config = with.toWire()
		}
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.Command = &protobufs.ServerToAgentCommand{Type: protobufs.CommandType_CommandType_Restart}
			message.RemoteConfig = config
		})
	case "assign":
		uid, err := uuid.Parse(c.UID)
		if err != nil {
			return err
		}
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: uid[:]}
		})
	case "full_state":
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
		})
	case "heartbeat":
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.ConnectionSettings = &protobufs.ConnectionSettingsOffers{
				Hash:  fmt.Appendf(nil, "heartbeat %d", c.Seconds),
				Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: c.Seconds},
			}
		})
	case "settings":
		offers, err := c.connectionSettings()
		if err != nil {
			return err
		}
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) { message.ConnectionSettings = offers })
	case "packages":
		offers, err := c.packagesAvailable()
		if err != nil {
			return err
		}
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) { message.PackagesAvailable = offers })
	case "components":
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
		})
	case "custom_capabilities":
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: c.Names}
		})
	case "custom":
		data, err := hex.DecodeString(c.Data)
		if err != nil {
			return err
		}
		return s.tell(c.Agent, func(_ *agent, message *protobufs.ServerToAgent) {
			message.CustomMessage = &protobufs.CustomMessage{Capability: c.Capability, Type: c.Type, Data: data}
		})
	case "no_certificates":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.noCertificates = c.Text
		return nil
	case "refuse":
		if c.Status < 300 || c.Status > 599 {
			return fmt.Errorf("status %d refuses nothing", c.Status)
		}
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.refusal = &refusal{status: c.Status, headers: c.Headers, times: c.Times}
		return nil
	case "unavailable":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.unavailable = &unavailable{times: c.Times}
		if c.RetryAfterMS != nil {
			s.unavailable.retryAfter = &protobufs.RetryInfo{RetryAfterNanoseconds: *c.RetryAfterMS * 1_000_000}
		}
		return nil
	case "disconnect":
		return s.disconnect(c.Agent)
	case "quit":
		return errQuit
	}
	return fmt.Errorf("unknown command %q", c.Do)
}

// tell sends agents something, and whatever else they do not know yet: at once
// over WebSocket, with the next answer otherwise.
func (s *server) tell(who string, change func(*agent, *protobufs.ServerToAgent)) error {
	chosen, err := s.chosen(who)
	if err != nil {
		return err
	}
	for _, to := range chosen {
		s.mutex.Lock()
		message := &protobufs.ServerToAgent{}
		change(to, message)
		current := to.connection
		if current == nil {
			if len(sentParts(message)) > 0 {
				to.waiting = append(to.waiting, message)
			}
			s.mutex.Unlock()
			continue
		}
		message.InstanceUid, message.Capabilities = bytes.Clone(to.uid[:]), uint64(capabilities)
		to.compose(message, s.offer)
		idle := len(sentParts(message)) == 0
		if !idle {
			s.tellSent(current, to, message)
			s.rename(to, message)
		}
		s.mutex.Unlock()
		if idle {
			continue
		}
		// Not under the mutex: an agent that does not read would hold up all others.
		if err := current.wire.Send(context.Background(), message); err != nil {
			s.sendFailed(current, message, err)
		}
	}
	return nil
}

func (s *server) disconnect(who string) error {
	chosen, err := s.chosen(who)
	if err != nil {
		return err
	}
	for _, to := range chosen {
		s.mutex.Lock()
		current := to.connection
		s.mutex.Unlock()
		if current == nil {
			return fmt.Errorf("agent %s has no WebSocket", to.uid)
		}
		if err := current.wire.Disconnect(); err != nil {
			return err
		}
	}
	return nil
}

// chosen are the agents that a command is about: the named one, or all.
func (s *server) chosen(who string) ([]*agent, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var chosen []*agent
	for uid, known := range s.agents {
		if who == "" || who == uid.String() {
			chosen = append(chosen, known)
		}
	}
	if who != "" && len(chosen) == 0 {
		return nil, fmt.Errorf("no agent %s", who)
	}
	return chosen, nil
}
