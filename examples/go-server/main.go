// go-server is a Go service to be profiled through the gateway: its own net/http/pprof on a loopback
// port, a hot function, a lock that is fought over, and a leak that can be switched on.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	sink     uint64
	leaking  int32
	leaked   [][]byte
	sessions = make(chan struct{})
	catalog  struct {
		sync.Mutex
		views map[int]int
	}
)

// hotFingerprint is what a CPU profile of this server should name.
//
//go:noinline
func hotFingerprint(frame []byte) uint64 {
	h := uint64(14695981039346656037)
	for i, b := range frame {
		h = (h ^ uint64(b)) * 1099511628211
		frame[i] = byte(h >> 17)
	}
	return h
}

// fingerprintFrames keeps about a third of one core busy.
func fingerprintFrames() {
	frame := make([]byte, 256<<10)
	for {
		for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); {
			atomic.AddUint64(&sink, hotFingerprint(frame))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// countViews holds the lock for longer than it needs to.
func countViews(course int) {
	for {
		catalog.Lock()
		catalog.views[course]++
		time.Sleep(time.Millisecond)
		catalog.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// leakSession leaves a goroutine and a buffer behind.
func leakSession() {
	leaked = append(leaked, make([]byte, 64<<10))
	go func() { <-sessions }()
}

func leakWhileSwitchedOn() {
	for range time.Tick(20 * time.Millisecond) {
		if atomic.LoadInt32(&leaking) == 1 && len(leaked) < 2000 {
			leakSession()
		}
	}
}

func serveSwitch(on int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		atomic.StoreInt32(&leaking, on)
		fmt.Fprintf(w, "leak: %v\n", on == 1)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "loopback address; port 0 is a free one")
	flag.Parse()
	host, _, err := net.SplitHostPort(*listen)
	if err != nil || net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback() {
		fmt.Fprintf(os.Stderr, "go-server: -listen %q: a loopback address and a port, as 127.0.0.1:0\n", *listen)
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(10000)
	catalog.views = make(map[int]int)
	go fingerprintFrames()
	for course := 0; course < 3; course++ {
		go countViews(course)
	}
	go leakWhileSwitchedOn()

	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/switch/leak/on", serveSwitch(1))
	mux.HandleFunc("/switch/leak/off", serveSwitch(0))
	server := &http.Server{Handler: mux}
	go func() { log.Fatal(server.Serve(listener)) }()
	fmt.Printf("listening on http://%s\n", listener.Addr())

	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}
