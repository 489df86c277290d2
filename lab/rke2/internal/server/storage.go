package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
)

// nfsDriver is the provisioner of csi-driver-nfs.
const nfsDriver = "nfs.csi.k8s.io"

// provisionVolumes is a double of csi-driver-nfs' controller: while that is
// deployed and available, a claim of one of its classes gets a volume that
// points into the class' share, and a released volume goes away. Nothing is
// made on the share. Binding is left to Kubernetes' own controller. All
// servers do it at once; the volume's name makes the second one harmless.
func (v *Server) provisionVolumes(ctx context.Context) {
	every(ctx, 2*time.Second, func() {
		if !v.available(ctx, "csi-nfs-controller") {
			return
		}
		var list kube.Object
		if v.admin.Get(ctx, "/apis/storage.k8s.io/v1/storageclasses", &list) != nil {
			return
		}
		classes := map[string]kube.Object{}
		for _, class := range kube.Items(list) {
			if kube.Text(class, "provisioner") == nfsDriver {
				classes[kube.Text(class, "metadata", "name")] = class
			}
		}
		if len(classes) == 0 {
			return
		}
		if v.admin.Get(ctx, "/api/v1/persistentvolumeclaims", &list) == nil {
			for _, claim := range kube.Items(list) {
				class := classes[kube.Text(claim, "spec", "storageClassName")]
				if class == nil || kube.Text(claim, "spec", "volumeName") != "" || kube.Text(claim, "metadata", "deletionTimestamp") != "" {
					continue
				}
				if kube.Text(class, "volumeBindingMode") == "WaitForFirstConsumer" &&
					kube.Text(claim, "metadata", "annotations", "volume.kubernetes.io/selected-node") == "" {
					continue
				}
				volume := volumeFor(claim, class)
				err := v.admin.Do(ctx, http.MethodPost, "/api/v1/persistentvolumes", volume, nil)
				if err != nil && !kube.Is(err, http.StatusConflict) {
					log.Error("Double of %s: volume for %s/%s: %v", nfsDriver, kube.Text(claim, "metadata", "namespace"), kube.Text(claim, "metadata", "name"), err)
				}
			}
		}
		if v.admin.Get(ctx, "/api/v1/persistentvolumes", &list) == nil {
			for _, volume := range kube.Items(list) {
				if kube.Text(volume, "metadata", "annotations", "pv.kubernetes.io/provisioned-by") == nfsDriver &&
					kube.Text(volume, "status", "phase") == "Released" && kube.Text(volume, "spec", "persistentVolumeReclaimPolicy") == "Delete" {
					_ = v.admin.Do(ctx, http.MethodDelete, "/api/v1/persistentvolumes/"+kube.Text(volume, "metadata", "name"), nil, nil)
				}
			}
		}
	})
}

// volumeFor is the volume that csi-driver-nfs would make for a claim: a
// folder of its own below the class' share.
func volumeFor(claim, class kube.Object) kube.Object {
	name := "pvc-" + kube.Text(claim, "metadata", "uid")
	server, share := kube.Text(class, "parameters", "server"), strings.Trim(kube.Text(class, "parameters", "share"), "/")
	policy := kube.Text(class, "reclaimPolicy")
	if policy == "" {
		policy = "Delete"
	}
	mode := kube.Text(claim, "spec", "volumeMode")
	if mode == "" {
		mode = "Filesystem"
	}
	spec := map[string]any{
		"accessModes": kube.At(claim, "spec", "accessModes"), "capacity": kube.At(claim, "spec", "resources", "requests"),
		"persistentVolumeReclaimPolicy": policy, "storageClassName": kube.Text(class, "metadata", "name"), "volumeMode": mode,
		"claimRef": map[string]any{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": kube.Text(claim, "metadata", "name"),
			"namespace": kube.Text(claim, "metadata", "namespace"), "uid": kube.Text(claim, "metadata", "uid"),
		},
		"csi": map[string]any{
			"driver": nfsDriver, "volumeHandle": server + "#" + share + "#" + name + "##",
			"volumeAttributes": map[string]any{"server": server, "share": "/" + share, "subdir": name},
		},
	}
	if options := kube.At(class, "mountOptions"); options != nil {
		spec["mountOptions"] = options
	}
	return kube.Object{
		"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec,
		"metadata": map[string]any{"name": name, "annotations": map[string]any{"pv.kubernetes.io/provisioned-by": nfsDriver}},
	}
}

// available reports whether a Deployment of that name, in any namespace, has
// an available replica.
func (v *Server) available(ctx context.Context, name string) bool {
	var list kube.Object
	if v.admin.Get(ctx, "/apis/apps/v1/deployments?fieldSelector=metadata.name%3D"+name, &list) != nil {
		return false
	}
	for _, deployment := range kube.Items(list) {
		if kube.Number(deployment, "status", "availableReplicas") > 0 {
			return true
		}
	}
	return false
}
