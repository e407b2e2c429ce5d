// go_reference is what libpostern is compared with: net/http/pprof as most Go services have it, with
// something in every profile. Built by pprof_tools.py, with the oldest Go that is supported and the newest.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

var (
	held  [][]byte
	short [16][]byte
	lock  sync.Mutex
	sum   uint64
)

//go:noinline
func spin() {
	for i := uint64(0); ; i++ {
		sum += i
		if i%4096 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

//go:noinline
func contend() {
	for {
		lock.Lock()
		time.Sleep(time.Millisecond)
		lock.Unlock()
	}
}

// allocate lets every difference of heap profiles have something in it.
//
//go:noinline
func allocate() {
	for i := 0; ; i++ {
		short[i%16] = make([]byte, 256<<10)
		time.Sleep(5 * time.Millisecond)
	}
}

//go:noinline
func hold() {
	for i := 0; i < 32; i++ {
		held = append(held, make([]byte, 1<<20))
	}
}

func main() {
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	hold()
	go spin()
	go allocate()
	for i := 0; i < 3; i++ {
		go pprof.Do(context.Background(), pprof.Labels("worker", "contend"), func(context.Context) { contend() })
	}
	http.HandleFunc("/drop", func(http.ResponseWriter, *http.Request) {
		held = nil
		runtime.GC()
	})
	go func() { log.Fatal(http.Serve(listener, nil)) }()
	fmt.Printf("listening on http://%s\n", listener.Addr())

	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
}
