package main

import (
	"context"
	"net"
	"net/http"
)

// fileServer serves a directory, ranges included, on a port of its own.
type fileServer struct {
	http    *http.Server
	address string
}

// startFiles is nil without a directory. With a token, requests without it are
// answered 401.
func startFiles(directory, token string) (*fileServer, error) {
	if directory == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	files := http.FileServer(http.Dir(directory))
	handler := func(w http.ResponseWriter, request *http.Request) {
		if token != "" && request.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, request)
	}
	made := &fileServer{http: &http.Server{Handler: http.HandlerFunc(handler)}, address: listener.Addr().String()}
	go func() { _ = made.http.Serve(listener) }() // ends with stop
	return made, nil
}

func (f *fileServer) stop(ctx context.Context) error {
	if f == nil {
		return nil
	}
	return f.http.Shutdown(ctx)
}
