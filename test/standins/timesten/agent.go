package timesten

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Status is what the agent tells the operator.
type Status struct {
	// Database: "None", "Unloaded" or "Loaded".
	Database string
	// Scheme and Agent are those of replication.
	Scheme, Agent bool
	State         string
	Rows          []string
}

// Serve makes the instance of a pod, as its image's entry point does, and serves
// the operator: GET /status; GET /database, the database as replication would
// duplicate it; PUT /database, that of the active database for a standby; POST
// /create and /activate.
func Serve(address, instance string) error {
	if err := os.MkdirAll(filepath.Join(instance, "bin"), 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ttenv := filepath.Join(instance, "bin", "ttenv")
	_ = os.Remove(ttenv) // that of the pod before
	if err := os.Symlink(self, ttenv); err != nil {
		return err
	}
	d := database(filepath.Join(instance, "database"))
	d.remove("loaded", "agent") // nothing outlives the processes
	server := &http.Server{Addr: address, Handler: handler(d), ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

func handler(d database) http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := Status{Database: "None", Scheme: d.has("scheme"), Agent: d.has("agent"), State: d.state(), Rows: d.rows()}
		switch {
		case d.loaded():
			s.Database = "Loaded"
		case d.has("data"):
			s.Database = "Unloaded"
		}
		_ = json.NewEncoder(w).Encode(s) // who asked has gone
	})
	mux.HandleFunc("GET /database", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(string(d), "data"))
	})
	mux.HandleFunc("PUT /database", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			d.remove("policy", "closed")
			err = d.write("data", string(data))
		}
		if err == nil {
			err = d.replicate("STANDBY")
		}
		reply(w, err)
	})
	mux.HandleFunc("POST /create", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.create()) })
	mux.HandleFunc("POST /activate", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.replicate("ACTIVE")) })
	return mux
}

// replicate makes the database one of a pair.
func (d database) replicate(state string) error {
	for name, text := range map[string]string{"loaded": "", "scheme": "", "agent": "", "state": state + "\n"} {
		if err := d.write(name, text); err != nil {
			return err
		}
	}
	return nil
}
