package agent

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"opstella.invalid/lab/rke2/internal/kube"
)

// api is as much of an API server as the pods of a node ask: objects by path, one list of pods, and their watch.
type api struct {
	mu      sync.Mutex
	objects map[string]string
	pods    []string
	changes chan string
	patches chan string
	events  chan string
}

func (a *api) set(path, object string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[path] = object
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/strategic-merge-patch+json":
		var body struct {
			Metadata struct {
				UID string `json:"uid"`
			} `json:"metadata"`
			Status struct {
				Conditions        []map[string]string `json:"conditions"`
				ContainerStatuses []struct {
					State struct {
						Waiting struct {
							Reason string `json:"reason"`
						} `json:"waiting"`
					} `json:"state"`
				} `json:"containerStatuses"`
			} `json:"status"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Metadata.UID == "" {
			http.Error(w, "no patch", http.StatusBadRequest)
			return
		}
		text := r.URL.Path + " " + body.Status.Conditions[0]["status"]
		for _, c := range body.Status.ContainerStatuses {
			text += " " + c.State.Waiting.Reason
		}
		a.patches <- text
		fmt.Fprint(w, "{}")
	case r.Method == http.MethodPost:
		var event kube.Object
		_ = json.NewDecoder(r.Body).Decode(&event)
		a.events <- kube.Text(event, "reason") + ": " + kube.Text(event, "message")
		fmt.Fprint(w, "{}")
	case r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("fieldSelector") != "spec.nodeName=w1":
		http.Error(w, "pods of another node", http.StatusBadRequest)
	case r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("watch") == "true":
		w.(http.Flusher).Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case change := <-a.changes:
				fmt.Fprintln(w, change)
				w.(http.Flusher).Flush()
			}
		}
	case r.URL.Path == "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles":
		fmt.Fprint(w, `{"items": [{"rules": [
			{"resources": ["secrets"], "verbs": ["create"]},
			{"resources": ["secrets"], "verbs": ["get", "update"], "resourceNames": ["of-a-job"]},
			{"resources": ["secrets"], "verbs": ["get"], "resourceNames": ["x"]}]}]}`)
	case r.URL.Path == "/api/v1/pods":
		fmt.Fprintf(w, `{"metadata": {"resourceVersion": "5"}, "items": [%s]}`, strings.Join(a.pods, ","))
	default:
		a.mu.Lock()
		defer a.mu.Unlock()
		object, there := a.objects[strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/n/")]
		if !there {
			http.Error(w, `{"message": "not found"}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, object)
	}
}

func serving(t *testing.T, a *api) *kube.Client {
	t.Helper()
	server := httptest.NewTLSServer(a)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kube.New(server.URL, ca, "")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestWhatAPodCannotStartWithout(t *testing.T) {
	client := serving(t, &api{objects: map[string]string{
		"secrets/there":                `{"data": {"a": ""}}`,
		"configmaps/there":             `{"data": {"a": ""}, "binaryData": {"b": ""}}`,
		"persistentvolumeclaims/there": `{}`,
	}})
	for spec, want := range map[string]string{
		`{"containers": [{"name": "c"}]}`: "",
		`{"volumes": [{"name": "v", "secret": {"secretName": "there", "items": [{"key": "a"}]}}]}`:                                        "",
		`{"volumes": [{"name": "v", "secret": {"secretName": "of-a-job"}}]}`:                                                              "",
		`{"volumes": [{"name": "v", "configMap": {"name": "of-a-job"}}]}`:                                                                 `v: configmap "of-a-job" not found`,
		`{"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}`:                                                                     `v: secret "x" not found`,
		`{"volumes": [{"name": "v", "secret": {"secretName": "x", "optional": true}}]}`:                                                   "",
		`{"volumes": [{"name": "v", "secret": {"secretName": "there", "items": [{"key": "z"}]}}]}`:                                        "v: references non-existent secret key: z",
		`{"volumes": [{"name": "v", "configMap": {"name": "x"}}]}`:                                                                        `v: configmap "x" not found`,
		`{"volumes": [{"name": "v", "configMap": {"name": "there", "items": [{"key": "a"}, {"key": "b"}]}}]}`:                             "",
		`{"volumes": [{"name": "v", "configMap": {"name": "there", "items": [{"key": "z"}]}}]}`:                                           "v: references non-existent config key: z",
		`{"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "there"}}, {"configMap": {"name": "x"}}]}}]}`:           `v: configmap "x" not found`,
		`{"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}`:                                                       `v: persistentvolumeclaim "x" not found`,
		`{"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "there"}}, {"name": "e", "emptyDir": {}}]}`:                    "",
		`{"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "x"}}]}]}`:                                                   `c: configmap "x" not found`,
		`{"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "x", "optional": true}}, {"secretRef": {"name": "y"}}]}]}`:      `c: secret "y" not found`,
		`{"containers": [{"name": "c", "env": [{"value": "1"}, {"valueFrom": {"secretKeyRef": {"name": "x", "key": "a"}}}]}]}`:            `c: secret "x" not found`,
		`{"containers": [{"name": "c", "env": [{"valueFrom": {"secretKeyRef": {"name": "there", "key": "z"}}}]}]}`:                        "c: couldn't find key z in Secret n/there",
		`{"containers": [{"name": "c", "env": [{"valueFrom": {"configMapKeyRef": {"name": "there", "key": "z", "optional": true}}}]}]}`:   "",
		`{"containers": [{"name": "c", "env": [{"valueFrom": {"configMapKeyRef": {"name": "there", "key": "z"}}}]}]}`:                     "c: couldn't find key z in ConfigMap n/there",
		`{"initContainers": [{"name": "i", "env": [{"valueFrom": {"configMapKeyRef": {"name": "x", "key": "z"}}}]}], "containers": [{}]}`: `i: configmap "x" not found`,
	} {
		p := &pod{}
		p.Metadata.Namespace = "n"
		if err := json.Unmarshal([]byte(spec), &p.Spec); err != nil {
			t.Fatal(err)
		}
		missing, err := p.lacks(context.Background(), client)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if missing != nil {
			got = missing.volume + missing.container + ": " + missing.message
		}
		if got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
}

func aPod(name, spec, status string) string {
	return fmt.Sprintf(`{"metadata": {"name": %q, "namespace": "n", "uid": %q, "resourceVersion": "6"}, "spec": %s, "status": %s}`, name, name, spec, status)
}

func TestAPodStartsWhenWhatItRefersToIsThere(t *testing.T) {
	const pending = `{"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}`
	const mount = `{"containers": [{"name": "c"}], "volumes": [{"name": "v", "secret": {"secretName": "late"}}]}`
	const environment = `{"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "late"}}]}, {"name": "d"}]}`
	a := &api{objects: map[string]string{}, changes: make(chan string), patches: make(chan string, 9), events: make(chan string, 9), pods: []string{
		aPod("runs", mount, `{"phase": "Running"}`),
		aPod("mounts", mount, pending),
	}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go holdPods(ctx, serving(t, a), "w1")
	expect := func(from chan string, want string) {
		t.Helper()
		select {
		case got := <-from:
			if got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not within 10 s: %s", want)
		}
	}
	status := func(name string) string { return "/api/v1/namespaces/n/pods/" + name + "/status" }
	expect(a.patches, status("mounts")+" False ContainerCreating")
	expect(a.events, `FailedMount: MountVolume.SetUp failed for volume "v" : secret "late" not found`)
	a.changes <- `{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}`
	a.changes <- `{"type": "ADDED", "object": ` + aPod("free", `{"containers": [{"name": "c"}]}`, pending) + `}`
	expect(a.patches, status("free")+" True")
	a.changes <- `{"type": "ADDED", "object": ` + aPod("reads", environment, pending) + `}`
	expect(a.patches, status("reads")+" False CreateContainerConfigError ContainerCreating")
	expect(a.events, `Failed: Error: secret "late" not found`)
	a.changes <- `{"type": "DELETED", "object": ` + aPod("mounts", mount, pending) + `}`
	a.set("secrets/late", `{}`)
	expect(a.patches, status("reads")+" True")
	select {
	case more := <-a.patches: // neither the one that runs nor the one that is gone
		t.Errorf("unexpected: %s", more)
	case more := <-a.events:
		t.Errorf("unexpected: %s", more)
	case <-time.After(2*lookAgain + time.Second):
	}
}

func TestKWOKWaitsForWhatIsHeld(t *testing.T) {
	const stages = "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: Stage\nmetadata:\n%s    - key: '.status.phase'\n      operator: 'In'\n"
	folder := t.TempDir()
	from, to := filepath.Join(folder, "from"), filepath.Join(folder, "to")
	write := func(text string) {
		if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf(stages, startsPods))
	if err := writeStages(from, to); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(to)
	if !strings.Contains(string(text), startsPods+onlyStartable+"    - key: '.status.phase'") || !strings.Contains(string(text), readyAgain) {
		t.Errorf("%s", text)
	}
	write(fmt.Sprintf(stages, strings.Replace(startsPods, "pod-ready", "pod-run", 1)))
	if err := writeStages(from, to); err == nil || !strings.Contains(err.Error(), "does not begin as it did") {
		t.Errorf("another beginning of the stage: %v", err)
	}
}

// TestPodsOfARealServer holds the pods of a real API server for as long as its standard input is open. It is
// tests/lab/test_held_pods.py that gives it the server, and looks at the pods.
func TestPodsOfARealServer(t *testing.T) {
	server, folder := os.Getenv("OPSTELLA_API_SERVER"), os.Getenv("OPSTELLA_FOLDER")
	if server == "" {
		t.Skip("run by tests/lab/test_held_pods.py")
	}
	client, err := kube.New(server, filepath.Join(folder, "ca.crt"), filepath.Join(folder, "client"))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeStages(os.Getenv("OPSTELLA_STAGES"), filepath.Join(folder, "stages.yaml")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	holdPods(ctx, client, "w1")
}
