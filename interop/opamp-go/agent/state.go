package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// state is what the agent keeps over restarts of its process: who it is, what
// it runs, and what it last said about a remote config. Without the last two a
// restarted agent would be offered a config that it already has.
type state struct {
	UID          string        `json:"uid"`
	Config       configMap     `json:"config"`
	RemoteStatus *remoteStatus `json:"remote_status,omitempty"`
	Settings     *settings     `json:"settings,omitempty"`

	path string
}

type remoteStatus struct {
	Hash   []byte                         `json:"hash"`
	Status protobufs.RemoteConfigStatuses `json:"status"`
	Error  string                         `json:"error,omitempty"`
}

// set records the outcome of applying the config: a nil error means APPLIED.
func (r *remoteStatus) set(err error) {
	r.Status, r.Error = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED, ""
	if err != nil {
		r.Status, r.Error = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, err.Error()
	}
}

func (r *remoteStatus) word() string {
	if r.Error == "" {
		return "APPLIED"
	}
	return "FAILED"
}

func (r *remoteStatus) toWire() *protobufs.RemoteConfigStatus {
	if r == nil {
		return nil
	}
	return &protobufs.RemoteConfigStatus{LastRemoteConfigHash: r.Hash, Status: r.Status, ErrorMessage: r.Error}
}

// loadState reads path. A missing file is a first start; an empty path means
// that nothing is kept.
func loadState(path string) (*state, error) {
	s := &state{path: path, Config: builtinConfig()}
	if path == "" {
		return s, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *state) save() error {
	if s.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(s.path, text)
}

// replaceFile writes a file in one step, so that a killed process leaves the old
// or the new one and never half of one. Nobody else can read it.
func replaceFile(path string, text []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".state-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err := temporary.Write(text); err != nil {
		temporary.Close()
		return err
	}
	if err := temporary.Sync(); err != nil {
		temporary.Close()
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
