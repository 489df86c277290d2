package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
)

// startable is the condition that a pod of this node gets once all that it refers to is there; KWOK's
// stage for new pods waits for it (onlyStartable). A stage can only look at the pod itself.
const startable = "opstella.lab/ReferencesFound"

// lookAgain is the pause between two looks for what a waiting pod misses; the kubelet begins with less and
// ends with more.
const lookAgain = 2 * time.Second

// watchTime bounds one request of the watch, so that a server that went away without a word is noticed.
const watchTime = 60 * time.Second

// source is a reference to an object with named keys, in any of the places where a pod may have one.
// Volumes of a Secret say secretName, all others name.
type source struct {
	Name       string `json:"name"`
	SecretName string `json:"secretName"`
	Key        string `json:"key"`
	Optional   bool   `json:"optional"`
	Items      []struct {
		Key string `json:"key"`
	} `json:"items"`
}

type container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Env   []struct {
		ValueFrom struct {
			ConfigMap *source `json:"configMapKeyRef"`
			Secret    *source `json:"secretKeyRef"`
		} `json:"valueFrom"`
	} `json:"env"`
	EnvFrom []struct {
		ConfigMap *source `json:"configMapRef"`
		Secret    *source `json:"secretRef"`
	} `json:"envFrom"`
}

// pod is what is looked at of a Pod.
type pod struct {
	Metadata struct {
		Name              string `json:"name"`
		Namespace         string `json:"namespace"`
		UID               string `json:"uid"`
		ResourceVersion   string `json:"resourceVersion"`
		DeletionTimestamp string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
		Volumes        []struct {
			Name      string  `json:"name"`
			ConfigMap *source `json:"configMap"`
			Secret    *source `json:"secret"`
			Claim     *struct {
				Name string `json:"claimName"`
			} `json:"persistentVolumeClaim"`
			Projected struct {
				Sources []struct {
					ConfigMap *source `json:"configMap"`
					Secret    *source `json:"secret"`
				} `json:"sources"`
			} `json:"projected"`
		} `json:"volumes"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

// pending tells whether the pod waits to be started.
func (p *pod) pending() bool {
	if p.Metadata.DeletionTimestamp != "" || p.Status.Phase != "Pending" {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == startable && c.Status == "True" {
			return false
		}
	}
	return true
}

// lack is why a pod cannot start: of a volume the pod's events say it, of an environment the container does.
type lack struct {
	volume, container string // one of the two
	message           string
}

// lacks returns what the pod cannot start without, nil where nothing is missing. Messages are the kubelet's:
// kubernetes pkg/volume/{configmap,secret,projected,util}, pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables).
func (p *pod) lacks(ctx context.Context, client *kube.Client) (*lack, error) {
	seen := map[string]kube.Object{} // path to object, nil where there is none
	get := func(resource, name string) (kube.Object, error) {
		path := "/api/v1/namespaces/" + p.Metadata.Namespace + "/" + resource + "/" + name
		if object, known := seen[path]; known {
			return object, nil
		}
		var object kube.Object
		if err := client.Get(ctx, path, &object); err != nil && !kube.Is(err, http.StatusNotFound) {
			return nil, err
		} else if err != nil {
			object = nil
		}
		seen[path] = object
		return object, nil
	}
	has := func(object kube.Object, key string) bool {
		for _, part := range []string{"data", "binaryData"} {
			if values, ok := kube.At(object, part).(map[string]any); ok {
				if _, there := values[key]; there {
					return true
				}
			}
		}
		return false
	}
	// missing asks for one source; kind is configmap or secret.
	missing := func(kind string, s *source) (string, error) {
		if s == nil || s.Optional {
			return "", nil
		}
		name := s.Name + s.SecretName
		object, err := get(kind+"s", name)
		if err == nil && object == nil && kind == "secret" {
			var played bool
			if played, err = p.madeByAJob(ctx, client, name); played {
				return "", nil
			}
		}
		if err != nil {
			return "", err
		}
		if object == nil {
			return fmt.Sprintf("%s %q not found", kind, name), nil
		}
		for _, item := range s.Items {
			if !has(object, item.Key) {
				return fmt.Sprintf("references non-existent %s key: %s", map[string]string{"configmap": "config", "secret": "secret"}[kind], item.Key), nil
			}
		}
		if s.Key != "" && !has(object, s.Key) {
			return fmt.Sprintf("couldn't find key %s in %s %s/%s", s.Key, map[string]string{"configmap": "ConfigMap", "secret": "Secret"}[kind],
				p.Metadata.Namespace, name), nil
		}
		return "", nil
	}
	first := func(pairs ...any) (string, error) {
		for i := 0; i < len(pairs); i += 2 {
			s, _ := pairs[i+1].(*source)
			if text, err := missing(pairs[i].(string), s); text != "" || err != nil {
				return text, err
			}
		}
		return "", nil
	}
	for _, v := range p.Spec.Volumes {
		text, err := first("configmap", v.ConfigMap, "secret", v.Secret)
		for _, s := range v.Projected.Sources {
			if text == "" && err == nil {
				text, err = first("configmap", s.ConfigMap, "secret", s.Secret)
			}
		}
		if text == "" && err == nil && v.Claim != nil {
			// A pod that comes by the scheduler never gets here without its claim.
			var claim kube.Object
			if claim, err = get("persistentvolumeclaims", v.Claim.Name); err == nil && claim == nil {
				text = fmt.Sprintf("persistentvolumeclaim %q not found", v.Claim.Name)
			}
		}
		if err != nil {
			return nil, err
		}
		if text != "" {
			return &lack{volume: v.Name, message: text}, nil
		}
	}
	for _, containers := range [][]container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			var text string
			var err error
			for _, e := range c.EnvFrom {
				if text == "" && err == nil {
					text, err = first("configmap", e.ConfigMap, "secret", e.Secret)
				}
			}
			for _, e := range c.Env {
				if text == "" && err == nil {
					text, err = first("configmap", e.ValueFrom.ConfigMap, "secret", e.ValueFrom.Secret)
				}
			}
			if err != nil {
				return nil, err
			}
			if text != "" {
				return &lack{container: c.Name, message: text}, nil
			}
		}
	}
	return nil, nil
}

// madeByAJob tells whether a Role of the pod's namespace lets somebody write the Secret of that name: what a Job of the
// platform would make. Jobs are played here as pods are, so their Secrets never come; nobody waits for those.
func (p *pod) madeByAJob(ctx context.Context, client *kube.Client, name string) (bool, error) {
	var roles struct {
		Items []struct {
			Rules []struct {
				Resources     []string `json:"resources"`
				Verbs         []string `json:"verbs"`
				ResourceNames []string `json:"resourceNames"`
			} `json:"rules"`
		} `json:"items"`
	}
	if err := client.Get(ctx, "/apis/rbac.authorization.k8s.io/v1/namespaces/"+p.Metadata.Namespace+"/roles", &roles); err != nil {
		return false, err
	}
	for _, role := range roles.Items {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "secrets") && slices.Contains(rule.Verbs, "update") && slices.Contains(rule.ResourceNames, name) {
				return true, nil
			}
		}
	}
	return false, nil
}

// gate holds the pods of one node until what they refer to is there, as the kubelet does.
type gate struct {
	client  *kube.Client
	node    string
	waiting map[string]*waiting // by uid
}

type waiting struct {
	pod  *pod
	said string
}

// holdPods follows the pods of the node until ctx ends. It goes on through errors.
func holdPods(ctx context.Context, client *kube.Client, node string) {
	g := &gate{client: client, node: node, waiting: map[string]*waiting{}}
	for ctx.Err() == nil {
		if err := g.follow(ctx); err != nil && ctx.Err() == nil {
			log.Warn("The pods of %s: %v", node, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// follow lists the node's pods and goes on from there, until the API server or a decision fails.
func (g *gate) follow(ctx context.Context) error {
	path := "/api/v1/pods?fieldSelector=" + url.QueryEscape("spec.nodeName="+g.node)
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []*pod `json:"items"`
	}
	if err := g.client.Get(ctx, path, &list); err != nil {
		return err
	}
	g.waiting = map[string]*waiting{}
	for _, p := range list.Items {
		if err := g.take(ctx, p); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, ended := make(chan change), make(chan error, 1)
	go func() { ended <- g.watch(ctx, path, list.Metadata.ResourceVersion, changes) }()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case c := <-changes:
			if c.gone {
				delete(g.waiting, c.pod.Metadata.UID)
				continue
			}
			if err := g.take(ctx, c.pod); err != nil {
				return err
			}
		case <-again.C:
			for _, w := range g.waiting {
				if err := g.decide(ctx, w); err != nil {
					return err
				}
			}
		}
	}
}

type change struct {
	pod  *pod
	gone bool
}

// watch sends every change, from a resource version on; it begins again where a request ended in order.
func (g *gate) watch(ctx context.Context, path, version string, changes chan<- change) error {
	for {
		watching, cancel := context.WithTimeout(ctx, watchTime+15*time.Second)
		err := g.client.Watch(watching, fmt.Sprintf("%s&watch=true&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%d",
			path, version, int(watchTime.Seconds())), func(kind string, data json.RawMessage) error {
			if kind == "ERROR" {
				return fmt.Errorf("the watch cannot go on: %s", data)
			}
			p := &pod{}
			if err := json.Unmarshal(data, p); err != nil {
				return err
			}
			version = p.Metadata.ResourceVersion
			if kind == "BOOKMARK" {
				return nil
			}
			select {
			case changes <- change{p, kind == "DELETED"}:
			case <-ctx.Done():
			}
			return nil
		})
		cancel()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// take looks at a pod that is new or has changed.
func (g *gate) take(ctx context.Context, p *pod) error {
	if !p.pending() {
		delete(g.waiting, p.Metadata.UID)
		return nil
	}
	if g.waiting[p.Metadata.UID] != nil {
		return nil // what it refers to cannot change
	}
	w := &waiting{pod: p}
	g.waiting[p.Metadata.UID] = w
	return g.decide(ctx, w)
}

// decide lets a pod start, or says once why it cannot.
func (g *gate) decide(ctx context.Context, w *waiting) error {
	missing, err := w.pod.lacks(ctx, g.client)
	if err != nil {
		return err
	}
	if missing != nil && w.said == missing.message {
		return nil
	}
	path := "/api/v1/namespaces/" + w.pod.Metadata.Namespace + "/pods/" + w.pod.Metadata.Name + "/status"
	// The uid keeps the status from another pod of the same name.
	body := kube.Object{"metadata": map[string]any{"uid": w.pod.Metadata.UID}, "status": w.pod.status(missing)}
	err = g.client.Do(ctx, http.MethodPatch, path, kube.Strategic(body), nil)
	if kube.Is(err, http.StatusNotFound, http.StatusConflict) {
		delete(g.waiting, w.pod.Metadata.UID) // deleted; the watch brings a successor
		return nil
	}
	if err != nil {
		return err
	}
	if missing == nil {
		delete(g.waiting, w.pod.Metadata.UID)
		return nil
	}
	w.said = missing.message
	return g.event(ctx, w.pod, missing)
}

// status is what the kubelet would report of a pod that waits, or that has all it refers to.
func (p *pod) status(missing *lack) map[string]any {
	now := time.Now().UTC().Format(time.RFC3339)
	condition := map[string]any{"type": startable, "status": "True", "lastTransitionTime": now}
	if missing == nil {
		return map[string]any{"conditions": []any{condition}}
	}
	condition["status"], condition["message"] = "False", missing.message
	states := func(containers []container) []any {
		out := []any{}
		for _, c := range containers {
			why := map[string]any{"reason": "ContainerCreating"}
			if c.Name == missing.container {
				why = map[string]any{"reason": "CreateContainerConfigError", "message": missing.message}
			}
			out = append(out, map[string]any{"name": c.Name, "image": c.Image, "imageID": "", "ready": false, "restartCount": 0,
				"state": map[string]any{"waiting": why}})
		}
		return out
	}
	status := map[string]any{"conditions": []any{condition}, "containerStatuses": states(p.Spec.Containers)}
	if len(p.Spec.InitContainers) > 0 {
		status["initContainerStatuses"] = states(p.Spec.InitContainers)
	}
	return status
}

// event says in the pod's namespace why it waits, in the kubelet's words.
func (g *gate) event(ctx context.Context, p *pod, missing *lack) error {
	reason, message := "Failed", "Error: "+missing.message
	if missing.volume != "" {
		reason, message = "FailedMount", fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s", missing.volume, missing.message)
	}
	now := time.Now().UTC()
	err := g.client.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+p.Metadata.Namespace+"/events", kube.Object{
		"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message, "count": 1,
		"metadata": map[string]any{"name": fmt.Sprintf("%s.%x", p.Metadata.Name, now.UnixNano()), "namespace": p.Metadata.Namespace},
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "name": p.Metadata.Name, "namespace": p.Metadata.Namespace,
			"uid": p.Metadata.UID},
		"source":         map[string]any{"component": "kubelet", "host": g.node},
		"firstTimestamp": now.Format(time.RFC3339), "lastTimestamp": now.Format(time.RFC3339),
	}, nil)
	var status *kube.StatusError
	if errors.As(err, &status) {
		return nil // a namespace that is being deleted takes none
	}
	return err
}
