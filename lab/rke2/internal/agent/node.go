package agent

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"

	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/pki"
)

// WriteKubeconfig writes a kubeconfig with everything embedded.
func WriteKubeconfig(path, server, caFile, certBase string, mode os.FileMode) error {
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		return base64.StdEncoding.EncodeToString(data)
	}
	ca, certificate, key := read(caFile), read(certBase+".crt"), read(certBase+".key")
	if ca == "" || certificate == "" || key == "" {
		return fmt.Errorf("kubeconfig %s: cannot read %s and %s.crt/.key", path, caFile, certBase)
	}
	text := `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: ` + ca + `
    server: ` + server + `
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: ` + certificate + `
    client-key-data: ` + key + `
`
	return pki.WriteFile(path, []byte(text), mode)
}

// register creates the Node object as the kubelet would, or brings labels,
// addresses and node information of an existing one up to date. Taints are
// only set when the node is new, as in RKE2.
func (n *Node) register(ctx context.Context, kubelet *kube.Client) error {
	s := n.s
	labels := map[string]any{
		"beta.kubernetes.io/arch": runtime.GOARCH, "beta.kubernetes.io/os": "linux",
		"kubernetes.io/arch": runtime.GOARCH, "kubernetes.io/os": "linux", "kubernetes.io/hostname": s.NodeName,
		"beta.kubernetes.io/instance-type": "rke2", "node.kubernetes.io/instance-type": "rke2",
	}
	for key, value := range s.Labels {
		labels[key] = value
	}
	arguments, _ := json.Marshal(s.Redacted())
	digest := sha256.Sum256(arguments)
	annotations := map[string]any{
		"rke2.io/hostname": s.NodeName, "rke2.io/internal-ip": s.NodeIP.String(), "rke2.io/node-args": string(arguments),
		"rke2.io/node-config-hash": strings.ToUpper(fmt.Sprintf("%x", digest)), "node.alpha.kubernetes.io/ttl": "0",
		"opstella.lab/double": "this node is a double of an RKE2 node: its pods are played by KWOK",
	}
	addresses := []any{map[string]any{"type": "InternalIP", "address": s.NodeIP.String()}, map[string]any{"type": "Hostname", "address": s.NodeName}}
	for _, ip := range s.ExternalIPs {
		addresses = append(addresses, map[string]any{"type": "ExternalIP", "address": ip})
	}
	room := capacity(s.DataDir)
	status := map[string]any{
		"addresses": addresses, "capacity": room, "allocatable": room, "nodeInfo": nodeInfo(n.version),
		"daemonEndpoints": map[string]any{"kubeletEndpoint": map[string]any{"Port": 10250}},
	}
	path := "/api/v1/nodes/" + s.NodeName
	var existing kube.Object
	err := kubelet.Get(ctx, path, &existing)
	if kube.Is(err, http.StatusNotFound) {
		spec := map[string]any{"providerID": "rke2://" + s.NodeName}
		if len(s.Taints) > 0 {
			spec["taints"] = s.Taints
		}
		return kubelet.Do(ctx, http.MethodPost, "/api/v1/nodes", kube.Object{
			"apiVersion": "v1", "kind": "Node",
			"metadata": map[string]any{"name": s.NodeName, "labels": labels, "annotations": annotations}, "spec": spec, "status": status,
		}, nil)
	}
	if err != nil {
		return err
	}
	if err := kubelet.Do(ctx, http.MethodPatch, path, kube.Object{"metadata": map[string]any{"labels": labels, "annotations": annotations}}, nil); err != nil {
		return err
	}
	return kubelet.Do(ctx, http.MethodPatch, path+"/status", kube.Object{"status": status}, nil)
}

// sizeFile holds the cores and GiB that the lab's plan gives to a host: all hosts
// share one machine, whose own figures would be shown by each of them.
const sizeFile = "/etc/opstella-lab/size"

// capacity is what the lab says of the host, or what it shows itself: processors, memory, disk.
func capacity(dataDir string) map[string]any {
	planned, gib := 0, 0
	if text, err := os.ReadFile(sizeFile); err == nil {
		_, _ = fmt.Sscan(string(text), &planned, &gib)
	}
	processors := 0
	info, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(info), "\n") {
		if strings.HasPrefix(line, "processor") {
			processors++
		}
	}
	if processors == 0 {
		processors = runtime.NumCPU()
	}
	memory := "1048576Ki"
	info, _ = os.ReadFile("/proc/meminfo")
	for _, line := range strings.Split(string(info), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			memory = f[1] + "Ki"
		}
	}
	if planned > 0 && gib > 0 {
		processors, memory = planned, fmt.Sprintf("%dGi", gib)
	}
	disk := "10Gi"
	var fs syscall.Statfs_t
	if syscall.Statfs(dataDir, &fs) == nil {
		disk = fmt.Sprintf("%dKi", fs.Blocks*uint64(fs.Bsize)/1024)
	}
	return map[string]any{"cpu": fmt.Sprint(processors), "memory": memory, "ephemeral-storage": disk, "pods": "110"}
}

func nodeInfo(version string) map[string]any {
	read := func(path string) string {
		data, _ := os.ReadFile(path)
		return strings.TrimSpace(string(data))
	}
	os := "Linux"
	for _, line := range strings.Split(read("/etc/os-release"), "\n") {
		if name, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			os = strings.Trim(name, `"`)
		}
	}
	return map[string]any{
		"architecture": runtime.GOARCH, "operatingSystem": "linux", "osImage": os, "machineID": read("/etc/machine-id"),
		"systemUUID": read("/etc/machine-id"), "bootID": read("/proc/sys/kernel/random/boot_id"),
		"kernelVersion": read("/proc/sys/kernel/osrelease"), "containerRuntimeVersion": "kwok://double",
		"kubeletVersion": version, "kubeProxyVersion": version,
	}
}
