package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"opstella.dev/lab/gitlab/internal/site"
)

// serve listens where the applied configuration says, and again after every SIGHUP, which is what
// `gitlab-ctl reconfigure` and `gitlab-ctl restart nginx` send.
func serve() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	for {
		one, err := load()
		if err != nil {
			return err
		}
		servers, failed := listen(one)
		select {
		case err := <-failed:
			return err
		case received := <-signals:
			shutdown(servers)
			if received != syscall.SIGHUP {
				return nil
			}
			log.Print("reading the configuration again")
		}
	}
}

func shutdown(servers []*http.Server) {
	ending, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, server := range servers {
		if server.Shutdown(ending) != nil {
			server.Close()
		}
	}
}

func listen(one *site.Site) ([]*http.Server, chan error) {
	failed := make(chan error, 4)
	var servers []*http.Server
	start := func(address string, handler http.Handler, certificate *tls.Certificate) {
		server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		if certificate != nil {
			server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
		}
		servers = append(servers, server)
		go func() {
			var err error
			if certificate != nil {
				err = server.ListenAndServeTLS("", "")
			} else {
				err = server.ListenAndServe()
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
		log.Printf("listening on %s", address)
	}
	if !isDown("nginx") {
		application := application(one)
		if one.HTTPS {
			certificate, err := tls.LoadX509KeyPair(one.Certificate, one.Key)
			if err != nil {
				failed <- fmt.Errorf("nginx: %w", err)
				return servers, failed
			}
			start(":"+one.HTTPSPort, application, &certificate)
			if one.HTTPPort != "" {
				start(":"+one.HTTPPort, redirect(one), nil)
			}
		} else {
			start(":"+one.HTTPPort, application, nil)
		}
	}
	if one.Prometheus != "" && !isDown("prometheus") {
		start(one.Prometheus, metrics(), nil)
	}
	return servers, failed
}

func redirect(one *site.Site) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := "https://" + one.Host
		if one.HTTPSPort != "443" {
			target += ":" + one.HTTPSPort
		}
		http.Redirect(w, r, target+r.URL.RequestURI(), http.StatusMovedPermanently)
	})
}

func metrics() http.Handler {
	mux := http.NewServeMux()
	plain := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			fmt.Fprint(w, text)
		}
	}
	mux.HandleFunc("/-/healthy", plain("Prometheus Server is Healthy.\n"))
	mux.HandleFunc("/-/ready", plain("Prometheus Server is Ready.\n"))
	mux.HandleFunc("/metrics", plain("# HELP gitlab_double 1 where the lab's double stands in for GitLab.\n# TYPE gitlab_double gauge\ngitlab_double 1\n"))
	return mux
}

const page = `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Sign in · GitLab double</title></head>
<body><h1>GitLab double</h1><p>This is a stand-in for GitLab in the opstella lab: it has no repositories. It proves
installation, configuration, certificate and ports; nothing about GitLab itself.</p>
<form method="post" action="/users/sign_in"><label>Username <input name="user[login]"></label>
<label>Password <input type="password" name="user[password]"></label><button>Sign in</button></form><p>%s</p></body></html>
`

// application is what nginx and Rails would answer.
func application(one *site.Site) http.Handler {
	html := func(w http.ResponseWriter, status int, note string) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, page, note)
	}
	working := func() bool { return !isDown("puma") && !isDown("gitlab-workhorse") }
	health := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !listed(r.RemoteAddr, one.Whitelist) {
				http.NotFound(w, r)
				return
			}
			if text == "" {
				w.Header().Set("Content-Type", "application/json")
				json.NewEncoder(w).Encode(map[string]any{"status": "ok", "master_check": []map[string]string{{"status": "ok"}}})
				return
			}
			fmt.Fprint(w, text)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /-/health", health("GitLab OK"))
	mux.HandleFunc("GET /-/readiness", health(""))
	mux.HandleFunc("GET /-/liveness", health(""))
	mux.HandleFunc("GET /users/sign_in", func(w http.ResponseWriter, _ *http.Request) { html(w, http.StatusOK, "") })
	mux.HandleFunc("POST /users/sign_in", func(w http.ResponseWriter, r *http.Request) {
		hash, err := os.ReadFile(hashes)
		if err == nil && r.FormValue("user[login]") == "root" {
			err = checkPassword(string(hash), r.FormValue("user[password]"))
		} else if err == nil {
			err = errors.New("Invalid login or password.")
		}
		if err != nil {
			html(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		http.Redirect(w, r, "/", http.StatusFound)
	})
	mux.Handle("/api/v4/", api(accessFile, time.Now))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/users/sign_in", http.StatusFound)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gitlab-Double", "opstella-lab")
		if !working() {
			html(w, http.StatusBadGateway, "502: GitLab is taking too much time to respond.")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func listed(remote string, networks []string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	address := net.ParseIP(host)
	for _, one := range networks {
		if _, network, err := net.ParseCIDR(one); err == nil && network.Contains(address) {
			return true
		}
	}
	return false
}
