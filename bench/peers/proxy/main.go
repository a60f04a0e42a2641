// The ReverseProxy peer: proxy -port P -target URL -key KEY. It checks the key, and relays streams.
package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

func main() {
	port := flag.Int("port", 8080, "")
	target := flag.String("target", "", "")
	key := flag.String("key", "", "")
	flag.Parse()
	upstream, err := url.Parse(*target)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte(*key))
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		FlushInterval: -1, // every write at once, as tokens want it
		Transport:     &http.Transport{MaxIdleConnsPerHost: 10000},
	}
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		given := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
		if subtle.ConstantTimeCompare(given[:], digest[:]) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil))
}
