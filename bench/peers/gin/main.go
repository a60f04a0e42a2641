// The Gin peer: gin -port P [-reuseport] -answers FILE -key KEY.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

type pair struct {
	Request  string `json:"request"`
	Response string `json:"response"`
}

func load(path string) map[string][]byte {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	answers := map[string][]byte{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p pair
		if err := json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &p); err != nil {
			log.Fatal(err)
		}
		answers[p.Request] = []byte(p.Response)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	return answers
}

func main() {
	port := flag.Int("port", 8080, "")
	path := flag.String("answers", "", "")
	key := flag.String("key", "", "")
	reuse := flag.Bool("reuseport", false, "")
	flag.Parse()
	answers := load(*path)
	digest := sha256.Sum256([]byte(*key))
	bucket := rate.NewLimiter(1e6, 1e6)
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "peer_requests"}, []string{"status"})
	prometheus.MustRegister(requests)
	ok := requests.WithLabelValues("200")

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.GET("/ready", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", []byte("{}")) })
	router.POST("/v1/query", func(c *gin.Context) {
		given := sha256.Sum256([]byte(strings.TrimPrefix(c.GetHeader("Authorization"), "Bearer ")))
		if subtle.ConstantTimeCompare(given[:], digest[:]) != 1 {
			c.Status(http.StatusUnauthorized)
			return
		}
		if !bucket.Allow() {
			c.Status(http.StatusTooManyRequests)
			return
		}
		body, err := io.ReadAll(c.Request.Body)
		if err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		answer, found := answers[string(body)]
		if !found {
			c.Status(http.StatusNotFound)
			return
		}
		ok.Inc()
		c.Data(http.StatusOK, "application/json", answer)
	})

	listen := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		if !*reuse {
			return nil
		}
		var failed error
		err := conn.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		if err != nil {
			return err
		}
		return failed
	}}
	listener, err := listen.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, router))
}
