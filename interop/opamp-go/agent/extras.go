package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// customTimeout bounds the wait for the custom message before.
const customTimeout = 10 * time.Second

// setComponents takes names and versions by turns.
func (a *agent) setComponents(words []string) error {
	components := map[string]string{}
	for at := 0; at < len(words); at += 2 {
		components[words[at]] = words[at+1]
	}
	a.mutex.Lock()
	a.components = components
	a.mutex.Unlock()
	return a.client.SetAvailableComponents(componentsToWire(components))
}

// componentsToWire is the complete list; the opamp-go client itself leaves all
// but the hash out where that is enough. Equal components have equal hashes.
func componentsToWire(components map[string]string) *protobufs.AvailableComponents {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	wire := &protobufs.AvailableComponents{Components: map[string]*protobufs.ComponentDetails{}}
	digest := sha256.New()
	for _, name := range names {
		fmt.Fprintf(digest, "%q %q\n", name, components[name])
		wire.Components[name] = &protobufs.ComponentDetails{
			Metadata: []*protobufs.KeyValue{attribute("version", components[name])},
		}
	}
	wire.Hash = digest.Sum(nil)
	return wire
}

func (a *agent) announceCustom(names []string) error {
	a.mutex.Lock()
	a.custom = names
	a.mutex.Unlock()
	return a.client.SetCustomCapabilities(&protobufs.CustomCapabilities{Capabilities: names})
}

// sendCustom waits for the message before it: the opamp-go client has room for
// one.
func (a *agent) sendCustom(capability, kind, data string) error {
	message := &protobufs.CustomMessage{Capability: capability, Type: kind}
	if data != "-" {
		bytes, err := hex.DecodeString(data)
		if err != nil {
			return err
		}
		message.Data = bytes
	}
	late := time.After(customTimeout)
	for {
		sending, err := a.client.SendCustomMessage(message)
		if !errors.Is(err, types.ErrCustomMessagePending) {
			return err
		}
		select {
		case <-sending:
		case <-late:
			return errors.New("the custom message before it is still waiting")
		}
	}
}

// orEmpty makes a list that was not given show as one without elements.
func orEmpty(names []string) []string {
	if names == nil {
		return []string{}
	}
	return names
}
