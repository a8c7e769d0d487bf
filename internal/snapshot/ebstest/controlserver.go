package ebstest

import (
	"encoding/json"
	"net/http"

	"keepset/internal/snapshot/ebstest/control"
)

// controls are the requests of the control interface. Each takes and gives JSON.
func (s *Server) controls() *http.ServeMux {
	mux := http.NewServeMux()
	handle(mux, "PUT /control/instances", func(_ *http.Request, i control.Instance) (any, error) { return s.PutInstance(i) })
	handle(mux, "DELETE /control/instances/{id}", func(r *http.Request, _ none) (any, error) {
		return none{}, s.DeleteInstance(r.PathValue("id"))
	})
	handle(mux, "POST /control/volumes", func(_ *http.Request, v control.Volume) (any, error) { return s.CreateVolume(v) })
	handle(mux, "GET /control/volumes", func(*http.Request, none) (any, error) { return s.Volumes(), nil })
	handle(mux, "GET /control/volumes/{id}", func(r *http.Request, _ none) (any, error) { return s.Volume(r.PathValue("id")) })
	handle(mux, "DELETE /control/volumes/{id}", func(r *http.Request, _ none) (any, error) {
		return none{}, s.DeleteVolume(r.PathValue("id"))
	})
	handle(mux, "POST /control/volumes/{id}/attachment", func(r *http.Request, to control.Volume) (any, error) {
		return s.Attach(r.PathValue("id"), to.Instance, to.Device)
	})
	handle(mux, "DELETE /control/volumes/{id}/attachment", func(r *http.Request, _ none) (any, error) {
		return none{}, s.Detach(r.PathValue("id"))
	})
	handle(mux, "GET /control/snapshots", func(*http.Request, none) (any, error) { return s.Snapshots(), nil })
	handle(mux, "POST /control/outcomes/{id}", func(r *http.Request, c control.Change) (any, error) {
		return none{}, s.Set(r.PathValue("id"), c)
	})
	s.faultControls(mux)
	return mux
}

// faultControls are the requests about what goes wrong and what went on.
func (s *Server) faultControls(mux *http.ServeMux) {
	handle(mux, "POST /control/rules", func(_ *http.Request, r control.Rule) (any, error) {
		return control.Injected{ID: s.Inject(r).id}, nil
	})
	handle(mux, "GET /control/rules/{id}", func(r *http.Request, _ none) (any, error) {
		i := s.injection(r.PathValue("id"))
		if i == nil {
			return nil, &Error{Code: "NotFound", Message: "there is no such rule", Status: http.StatusNotFound}
		}
		return control.Injected{ID: i.id, Fired: i.Fired()}, nil
	})
	handle(mux, "DELETE /control/rules/{id}", func(r *http.Request, _ none) (any, error) {
		if i := s.injection(r.PathValue("id")); i != nil {
			i.Remove()
		}
		return none{}, nil
	})
	handle(mux, "POST /control/calls", func(_ *http.Request, scope control.Scope) (any, error) { return s.Calls(scope), nil })
	handle(mux, "POST /control/keys", func(_ *http.Request, k control.Key) (any, error) { return none{}, s.DenyKey(k.Key, k.Denied) })
	handle(mux, "POST /control/rights", func(_ *http.Request, g control.Rights) (any, error) {
		s.Allow(g.AccessKey, g.Rights...)
		return none{}, nil
	})
	handle(mux, "PUT /control/freezer", func(_ *http.Request, f control.Freezer) (any, error) { return none{}, s.SetFreezer(f.URL) })
}

// none is the empty object.
type none struct{}

// handle serves one request of the control interface.
func handle[In any](mux *http.ServeMux, pattern string, do func(*http.Request, In) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodPost || r.Method == http.MethodPut {
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		out, err := do(r, in)
		if err != nil {
			e := complete(err, "InternalError")
			w.WriteHeader(e.Status)
			out = e
		}
		_ = json.NewEncoder(w).Encode(out) // a client that is gone has no use for an error
	})
}
