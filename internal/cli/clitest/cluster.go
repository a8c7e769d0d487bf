package clitest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Cluster is a Kubernetes API server that keeps objects by their URL. It has no
// controllers, but each Job that is made has run and ended well at once.
type Cluster struct {
	// Kubeconfig is the file that names it.
	Kubeconfig string
	mu         sync.Mutex
	exec       http.Handler // nil: nothing runs in the pods
	objects    map[string]map[string]any
	changes    int
}

// set is a small StatefulSet. Each object says in the annotation "url" where it is.
//
//go:embed set.yaml
var set string

// NewCluster starts a cluster with the StatefulSet mysql/mysql of one replica,
// and Keepset's CronJobs.
func NewCluster(t *testing.T) *Cluster {
	t.Helper()
	c := &Cluster{objects: map[string]map[string]any{}, Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	for doc := range strings.SplitSeq(set, "\n---\n") {
		var o map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(doc), &o), doc)
		meta := part(o, "metadata")
		url, ok := part(meta, "annotations")["url"].(string)
		require.True(t, ok, "no url: %s", doc)
		c.objects[url] = o
		meta["uid"], meta["resourceVersion"] = "uid-of-"+path.Base(url), "1"
	}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	kubeconfig := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: it, contexts: [{name: it, context: {cluster: it, user: it}}],"+
		" users: [{name: it, user: {}}], clusters: [{name: it, cluster: {server: %q}}]}", server.URL)
	require.NoError(t, os.WriteFile(c.Kubeconfig, []byte(kubeconfig), 0o600))
	return c
}

// Run has the set's container run, and its programs served by exec.
func (c *Cluster) Run(exec http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exec = exec
	running := map[string]any{"name": "mysql", "ready": true, "state": map[string]any{"running": map[string]any{}}}
	part(c.objects["/api/v1/namespaces/mysql/pods/mysql-0"], "status")["containerStatuses"] = []any{running}
}

// programs is what runs in the pods.
func (c *Cluster) programs() http.Handler {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exec
}

// Changes counts what was changed so far.
func (c *Cluster) Changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// ServeHTTP implements http.Handler.
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if exec := c.programs(); exec != nil && path.Base(r.URL.Path) == "exec" {
		exec.ServeHTTP(w, r)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	answer, status := any(nil), http.StatusOK
	if err == nil {
		answer, err = c.answer(r, body)
	}
	if err != nil {
		status = http.StatusBadRequest
		answer = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonBadRequest, Message: err.Error(), Code: int32(status)}
	} else if answer == nil {
		status = http.StatusNotFound
		answer = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Message: r.URL.Path + " not found", Code: int32(status)}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client sees that it is cut
}

// answer returns nil for what is not there.
func (c *Cluster) answer(r *http.Request, body []byte) (any, error) {
	url := r.URL.Path
	if r.Method != http.MethodGet && !r.URL.Query().Has("dryRun") {
		c.changes++
	}
	switch r.Method {
	case http.MethodGet:
		if object, ok := c.objects[url]; ok {
			return object, nil
		}
		if c.objects[path.Dir(url)] != nil && path.Base(url) == "log" {
			return "a line of the pod's log", nil
		}
		if isCollection(url) {
			return c.list(url, r.URL.Query().Get("labelSelector"))
		}
		return nil, nil
	case http.MethodPost, http.MethodPut:
		object, err := decode(body)
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Has("dryRun") {
			return object, nil
		}
		if r.Method == http.MethodPost {
			url += "/" + fmt.Sprint(part(object, "metadata")["name"])
		}
		return c.keep(url, object), nil
	case http.MethodPatch:
		return c.patch(url, body)
	case http.MethodDelete:
		delete(c.objects, url)
		return metav1.Status{Status: metav1.StatusSuccess}, nil
	}
	return nil, fmt.Errorf("this cluster does not know %s", r.Method)
}

// isCollection tells .../namespaces/NS/pods from .../namespaces/NS/pods/NAME,
// and /api/v1/nodes from /api/v1/nodes/NAME.
func isCollection(url string) bool {
	if _, rest, ok := strings.Cut(url, "/namespaces/"); ok {
		return strings.Count(rest, "/") == 1
	}
	rest, ok := strings.CutPrefix(url, "/api/v1/")
	return ok && !strings.Contains(rest, "/")
}

func (c *Cluster) list(url, selector string) (any, error) {
	selects, err := labels.Parse(selector)
	if err != nil {
		return nil, err
	}
	items := []map[string]any{}
	for at, object := range c.objects {
		set := labels.Set{}
		for k, v := range part(part(object, "metadata"), "labels") {
			set[k] = fmt.Sprint(v)
		}
		if path.Dir(at) == url && selects.Matches(set) {
			items = append(items, object)
		}
	}
	slices.SortFunc(items, func(a, b map[string]any) int {
		return strings.Compare(fmt.Sprint(part(a, "metadata")["name"]), fmt.Sprint(part(b, "metadata")["name"]))
	})
	return map[string]any{"metadata": map[string]any{"resourceVersion": "1"}, "items": items}, nil
}

// decode reads an object in JSON or protobuf, which clients prefer.
func decode(body []byte) (map[string]any, error) {
	typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		return nil, err
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
}

func (c *Cluster) keep(url string, object map[string]any) any {
	meta := part(object, "metadata")
	meta["uid"], meta["resourceVersion"] = "uid-of-"+path.Base(url), "1"
	c.objects[url] = object
	if collection, name := path.Split(url); path.Base(collection) == "jobs" {
		object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Complete", "status": "True"}}}
		c.ran(strings.Replace(path.Dir(path.Dir(url)), "/apis/batch/v1", "/api/v1", 1)+"/pods/"+name, meta["uid"], workContainer(object))
	}
	return object
}

// workContainer names the first container of a Job's pods.
func workContainer(job map[string]any) any {
	list, ok := part(part(part(job, "spec"), "template"), "spec")["containers"].([]any)
	if !ok || len(list) == 0 {
		return ""
	}
	container, _ := list[0].(map[string]any)
	return container["name"]
}

// ran adds the pod of a Job, which has ended well and left a message.
func (c *Cluster) ran(url string, job, container any) {
	c.objects[url] = map[string]any{
		"metadata": map[string]any{"name": path.Base(url), "labels": map[string]any{batchv1.ControllerUidLabel: job}},
		"status": map[string]any{"phase": "Succeeded", "containerStatuses": []any{map[string]any{
			"name": container, "state": map[string]any{"terminated": map[string]any{"exitCode": 0, "message": "all went well"}},
		}}},
	}
}

func (c *Cluster) patch(url string, body []byte) (any, error) {
	object, ok := c.objects[url]
	if !ok {
		return nil, nil
	}
	before, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	after, err := jsonpatch.MergePatch(before, body)
	if err != nil {
		return nil, err
	}
	var changed map[string]any
	if err := json.Unmarshal(after, &changed); err != nil {
		return nil, err
	}
	c.objects[url] = changed
	return changed, nil
}

// part is an object within an object, empty when it is not there.
func part(object map[string]any, name string) map[string]any {
	inner, ok := object[name].(map[string]any)
	if !ok {
		return map[string]any{}
	}
	return inner
}
