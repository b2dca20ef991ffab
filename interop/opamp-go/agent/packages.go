package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

const packageCapabilities = protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses

// packageStore keeps packages in a directory: one file of content each, and an
// index. Comparing the content with its hash is left to it by opamp-go.
type packageStore struct {
	directory string

	mutex sync.Mutex
	index packageIndex
}

type packageIndex struct {
	AllHash  []byte                   `json:"all_hash"`
	Packages map[string]packageRecord `json:"packages"`
	Statuses []byte                   `json:"statuses"` // as they were last reported, in Protobuf
}

type packageRecord struct {
	Type        protobufs.PackageType `json:"type"`
	Hash        []byte                `json:"hash"`
	Version     string                `json:"version"`
	ContentHash []byte                `json:"content_hash"`
}

var _ types.PackagesStateProvider = (*packageStore)(nil)

func openPackages(directory string) (*packageStore, error) {
	store := &packageStore{directory: directory, index: packageIndex{Packages: map[string]packageRecord{}}}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(store.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return store, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &store.index); err != nil {
		return nil, fmt.Errorf("%s: %w", store.path("index.json"), err)
	}
	return store, nil
}

// syncPackages lets opamp-go fetch what is offered. It holds up the messages that
// follow while an offer before is still being worked at.
func (a *agent) syncPackages(ctx context.Context, offer *protobufs.PackagesAvailable, syncer types.PackagesSyncer) {
	names := []string{}
	for name := range offer.GetPackages() {
		names = append(names, name)
	}
	sort.Strings(names)
	hash := hex.EncodeToString(offer.GetAllPackagesHash())
	a.events.Emit(eventPackagesOffered, fields{"hash": hash, "names": names})
	if syncer == nil {
		a.report(errors.New("no syncer for the packages"))
		return
	}
	if err := syncer.Sync(ctx); err != nil {
		a.report(err)
		return
	}
	go func() {
		<-syncer.Done()
		there, _ := a.packages.Packages()
		a.events.Emit(eventPackagesSynced, fields{"hash": hash, "names": there})
	}()
}

func (p *packageStore) AllPackagesHash() ([]byte, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.index.AllHash, nil
}

func (p *packageStore) SetAllPackagesHash(hash []byte) error {
	return p.change(func(index *packageIndex) error {
		index.AllHash = hash
		return nil
	})
}

func (p *packageStore) Packages() ([]string, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	names := []string{}
	for name := range p.index.Packages {
		names = append(names, name)
	}
	sort.Strings(names)
	return names, nil
}

func (p *packageStore) PackageState(name string) (types.PackageState, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	record, exists := p.index.Packages[name]
	return types.PackageState{Exists: exists, Type: record.Type, Hash: record.Hash, Version: record.Version}, nil
}

func (p *packageStore) SetPackageState(name string, state types.PackageState) error {
	return p.change(func(index *packageIndex) error {
		record := index.Packages[name]
		record.Hash, record.Version = state.Hash, state.Version
		index.Packages[name] = record
		return nil
	})
}

func (p *packageStore) CreatePackage(name string, kind protobufs.PackageType) error {
	return p.change(func(index *packageIndex) error {
		if _, exists := index.Packages[name]; exists {
			return fmt.Errorf("package %q is there already", name)
		}
		index.Packages[name] = packageRecord{Type: kind}
		return nil
	})
}

func (p *packageStore) FileContentHash(name string) ([]byte, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.index.Packages[name].ContentHash, nil
}

func (p *packageStore) UpdateContent(_ context.Context, name string, data io.Reader, wanted, _ []byte) error {
	content, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(content)
	if !bytes.Equal(hash[:], wanted) {
		return fmt.Errorf("the content of %q has the hash %x instead of %x", name, hash, wanted)
	}
	if err := replaceFile(p.content(name), content); err != nil {
		return err
	}
	return p.change(func(index *packageIndex) error {
		record := index.Packages[name]
		record.ContentHash = hash[:]
		index.Packages[name] = record
		return nil
	})
}

func (p *packageStore) DeletePackage(name string) error {
	if err := os.Remove(p.content(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.change(func(index *packageIndex) error {
		delete(index.Packages, name)
		return nil
	})
}

func (p *packageStore) LastReportedStatuses() (*protobufs.PackageStatuses, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.index.Statuses == nil {
		return nil, nil
	}
	statuses := &protobufs.PackageStatuses{}
	return statuses, proto.Unmarshal(p.index.Statuses, statuses)
}

func (p *packageStore) SetLastReportedStatuses(statuses *protobufs.PackageStatuses) error {
	encoded, err := proto.Marshal(statuses)
	if err != nil {
		return err
	}
	return p.change(func(index *packageIndex) error {
		index.Statuses = encoded
		return nil
	})
}

func (p *packageStore) change(how func(*packageIndex) error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := how(&p.index); err != nil {
		return err
	}
	text, err := json.MarshalIndent(p.index, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(p.path("index.json"), text)
}

// content is in hex, as a name may be anything.
func (p *packageStore) content(name string) string {
	return p.path("package-" + hex.EncodeToString([]byte(name)))
}

func (p *packageStore) path(name string) string { return filepath.Join(p.directory, name) }
