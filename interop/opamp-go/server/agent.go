package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"sort"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server/types"
)

// connection is one WebSocket, or one request over plain HTTP, which has no
// number and nothing to send on.
type connection struct {
	number   int
	peer     string
	endpoint string
	wire     types.Connection // nil over plain HTTP
}

// agent is what the server remembers of an agent. The server's mutex guards it.
type agent struct {
	uid        uuid.UUID
	connection *connection                // its WebSocket; nil over plain HTTP and while it is away
	reported   []byte                     // the config hash of its last status
	offered    []byte                     // the config hash that it was last offered on this connection
	waiting    []*protobufs.ServerToAgent // what its next messages are answered with, one each
	accepts    bool                       // whether it takes remote configs
}

// offer is the config that agents are to run.
type offer struct {
	hash   []byte
	config *protobufs.AgentConfigMap
}

// parseOffer reads files as a JSON object of name and text.
func parseOffer(text string) (*offer, error) {
	var files map[string]string
	if err := json.Unmarshal([]byte(text), &files); err != nil {
		return nil, err
	}
	return newOffer(files, "")
}

// newOffer takes the hash in hex, or makes one of the files.
func newOffer(files map[string]string, hash string) (*offer, error) {
	if len(files) == 0 {
		return nil, errors.New("an offer needs files")
	}
	made := &offer{config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{}}}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	digest := sha256.New()
	for _, name := range names {
		made.config.ConfigMap[name] = &protobufs.AgentConfigFile{Body: []byte(files[name]), ContentType: "text/yaml"}
		digest.Write([]byte(name + "\x00" + files[name] + "\x00"))
	}
	made.hash = digest.Sum(nil)
	if hash != "" {
		given, err := hex.DecodeString(hash)
		if err != nil {
			return nil, err
		}
		made.hash = given
	}
	return made, nil
}

// heard takes over what a message says.
func (a *agent) heard(c *connection, message *protobufs.AgentToServer) {
	if c.wire != nil && a.connection != c {
		a.connection, a.offered = c, nil
	}
	a.accepts = message.GetCapabilities()&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig) != 0
	if status := message.GetRemoteConfigStatus(); status != nil {
		a.reported = status.GetLastRemoteConfigHash()
	}
}

// compose adds to a message what the agent does not know yet.
func (a *agent) compose(message *protobufs.ServerToAgent, wanted *offer) {
	if len(a.waiting) > 0 {
		proto.Merge(message, a.waiting[0])
		a.waiting = a.waiting[1:]
	}
	if message.GetCommand() != nil {
		return // whatever else is in such a message is ignored
	}
	if wanted != nil && a.accepts && !bytes.Equal(a.reported, wanted.hash) && !bytes.Equal(a.offered, wanted.hash) {
		a.give(message, wanted)
	}
}

// give puts an offer into a message.
func (a *agent) give(message *protobufs.ServerToAgent, wanted *offer) {
	message.RemoteConfig = wanted.toWire()
	a.offered = wanted.hash
}

func (o *offer) toWire() *protobufs.AgentRemoteConfig {
	return &protobufs.AgentRemoteConfig{Config: o.config, ConfigHash: o.hash}
}
