// Command evil is a signaling server gone bad, for the browser tests of what such a server can do: it serves the page and the hub of a real
// server, and meddles with what the hub delivers. A connection to /ws?mode=NAME names the attack; the control address /evil says how it
// goes, stops it, and hands it the room's link, with which it is an insider: it opens and seals room envelopes like any member.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("evil: ")
	target := flag.String("target", "", "URL of the real server (required)")
	record := flag.String("record", "", "file to which all that passes is appended (required)")
	mode := flag.String("mode", "", "the attack on connections that name none")
	flag.Parse()
	if err := run(*target, *record, *mode); err != nil {
		log.Fatal(err)
	}
}

func run(target, record, mode string) error {
	to, err := url.Parse(target)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &server{target: to, mode: mode, file: file, attacks: map[string]*attack{}}
	pages := httputil.NewSingleHostReverseProxy(to)
	pages.ErrorLog = log.New(io.Discard, "", 0) // requests that a page gives up when it is loaded anew
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", s.connect)
	mux.HandleFunc("/ws/", s.connect)
	mux.HandleFunc("/evil", s.control)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		request, err := httputil.DumpRequest(r, true)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.write(request)
		pages.ServeHTTP(w, r)
	})
	fmt.Printf("listening on http://%s/\n", listener.Addr())
	return http.Serve(listener, mux)
}

// server is guarded by its mutex.
type server struct {
	target *url.URL
	mode   string

	mu      sync.Mutex
	file    *os.File
	attacks map[string]*attack
}

func (s *server) write(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Write(append(p, '\n')); err != nil {
		log.Fatal(err)
	}
}

// attack of that name, which begins with the first mention of it.
func (s *server) attack(mode string) *attack {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attacks[mode]
	if a == nil {
		if blind[mode] == nil && insider[mode].change == nil && mode != "" {
			return nil
		}
		a = newAttack(mode)
		s.attacks[mode] = a
	}
	return a
}

// control answers GET with what an attack has done; POST with a link in the body makes it an insider's, DELETE ends it.
func (s *server) control(w http.ResponseWriter, r *http.Request) {
	a := s.attack(r.URL.Query().Get("mode"))
	if a == nil {
		http.Error(w, "no such attack", http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodPost:
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<12))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		link, err := seal.ParseLink(string(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.learn(link)
	case http.MethodDelete:
		a.stop()
	}
	if err := json.NewEncoder(w).Encode(a.report()); err != nil {
		log.Print(err)
	}
}

// connect passes messages on between a browser and the hub.
func (s *server) connect(w http.ResponseWriter, r *http.Request) {
	mode := r.URL.Query().Get("mode")
	if mode == "" {
		mode = s.mode
	}
	a := s.attack(mode)
	if a == nil {
		http.Error(w, "no such attack", http.StatusNotFound)
		return
	}
	browser, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.HubSubprotocol}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer browser.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	hub, _, err := websocket.Dial(ctx, strings.Replace(s.target.String(), "http", "ws", 1)+"/ws",
		&websocket.DialOptions{Subprotocols: []string{wire.HubSubprotocol}})
	if err != nil {
		return
	}
	defer hub.CloseNow()
	browser.SetReadLimit(wire.MaxHubMessage)
	hub.SetReadLimit(wire.MaxHubMessage)

	v := &victim{send: func(message []byte) { _ = browser.Write(ctx, websocket.MessageBinary, message) }} // one that has gone gets nothing
	go func() {
		defer cancel()
		for {
			_, message, err := browser.Read(ctx)
			if err != nil {
				return
			}
			s.write(message)
			if enter, err := wire.ParseEnter(message); err == nil {
				a.enter(v, enter.Member)
			}
			if hub.Write(ctx, websocket.MessageBinary, message) != nil {
				return
			}
		}
	}()
	for {
		_, message, err := hub.Read(ctx)
		if err != nil {
			return
		}
		s.write(message)
		a.deliver(v, message)
	}
}
