// Package cnpg is a double of the CloudNativePG operator. What it creates is
// built by the operator's own packages (names, keys, labels, pod templates);
// when it creates what, and what it reports, is a small part of the original.
// No PostgreSQL runs.
package cnpg

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"sort"
	"time"

	apiv1 "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	"github.com/cloudnative-pg/cloudnative-pg/pkg/reconciler/persistentvolumeclaim"
	"github.com/cloudnative-pg/cloudnative-pg/pkg/resources/status"
	"github.com/cloudnative-pg/cloudnative-pg/pkg/specs"
	"github.com/cloudnative-pg/cloudnative-pg/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Lease is the operator's own election.
const Lease = "db9c8771.cnpg.io"

const (
	// busy and calm are the pauses between two looks at all clusters, while one
	// of them is not healthy and while all are.
	busy = time.Second
	calm = 5 * time.Second
)

// Scheme holds Kubernetes' own types and CloudNativePG's.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	// Both only register types; they fail on a conflict within this program.
	if err := errors.Join(clientgoscheme.AddToScheme(s), apiv1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

// Run looks after all clusters until ctx ends. It goes on through errors.
func Run(ctx context.Context, config *rest.Config) error {
	c, err := client.New(config, client.Options{Scheme: Scheme()})
	if err != nil {
		return fmt.Errorf("client of %s: %w", config.Host, err)
	}
	o := Operator{Client: c}
	klog.InfoS("looking after clusters", "server", config.Host)
	for {
		pause := calm
		healthy, err := o.Round(ctx)
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "trying again")
		}
		if !healthy {
			pause = busy
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Operator does the work on one API server.
type Operator struct {
	Client client.Client
}

// Round reconciles each cluster once and tells whether all are healthy.
func (o *Operator) Round(ctx context.Context) (bool, error) {
	var found apiv1.ClusterList
	if err := o.Client.List(ctx, &found); err != nil {
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return false, nil // the definition is not there yet
		}
		return false, fmt.Errorf("listing clusters: %w", err)
	}
	healthy := true
	var failures []error
	for i := range found.Items {
		c := &found.Items[i]
		if c.DeletionTimestamp != nil {
			continue
		}
		if err := o.Reconcile(ctx, c); err != nil {
			healthy = false
			if !apierrors.IsConflict(err) {
				failures = append(failures, fmt.Errorf("cluster %s/%s: %w", c.Namespace, c.Name, err))
			}
		}
		healthy = healthy && c.Status.Phase == apiv1.PhaseHealthy
	}
	return healthy, errors.Join(failures...)
}

// waiting is why a cluster is not healthy: the phase, and the reason in words.
type waiting struct{ phase, reason string }

func (w waiting) Error() string { return w.phase + ": " + w.reason }

// Reconcile brings one cluster a step further and writes its status.
func (o *Operator) Reconcile(ctx context.Context, stored *apiv1.Cluster) error {
	// The original's webhook writes these defaults into the object.
	cluster := stored.DeepCopy()
	cluster.TypeMeta = metav1.TypeMeta{APIVersion: apiv1.SchemeGroupVersion.String(), Kind: apiv1.ClusterKind}
	cluster.Default()
	// The pod template takes the image from the status. Catalogs are not covered.
	cluster.Status.Image = cluster.Spec.ImageName

	err := o.objects(ctx, cluster)
	var instances state
	if err == nil {
		instances, err = o.instances(ctx, cluster)
	}
	var why waiting
	switch {
	case err == nil:
		why = waiting{phase: apiv1.PhaseHealthy}
	case errors.As(err, &why):
	default:
		return err
	}
	before := stored.Status.DeepCopy()
	s := &stored.Status
	s.Instances, s.ReadyInstances = len(instances.pods), len(instances.ready)
	s.InstanceNames, s.HealthyPVC, s.PVCCount = instances.pods, instances.claims, int32(len(instances.claims)) //nolint:gosec // a handful
	s.InstancesStatus = nil
	if len(instances.ready) > 0 {
		s.InstancesStatus = map[apiv1.PodStatus][]string{apiv1.PodHealthy: instances.ready}
	}
	s.LatestGeneratedNode = max(s.LatestGeneratedNode, len(instances.pods))
	s.WriteService, s.ReadService = cluster.GetServiceReadWriteName(), cluster.GetServiceReadName()
	s.Image = cluster.Spec.ImageName
	if len(instances.pods) > 0 {
		s.TargetPrimary = specs.GetInstanceName(cluster.Name, 1)
	}
	if len(instances.ready) > 0 && s.CurrentPrimary == "" {
		s.CurrentPrimary = s.TargetPrimary
		s.CurrentPrimaryTimestamp = time.Now().UTC().Format(time.RFC3339Nano)
	}
	status.SetPhase(why.phase, why.reason)(stored)
	status.SetClusterReadyCondition(stored)
	if equality.Semantic.DeepEqual(before, s) {
		return nil
	}
	if before.Phase != s.Phase || before.PhaseReason != s.PhaseReason {
		klog.InfoS("cluster", "namespace", cluster.Namespace, "name", cluster.Name, "phase", s.Phase, "reason", s.PhaseReason)
	}
	if err := o.Client.Status().Update(ctx, stored); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// objects creates the secrets, services and the account of a cluster. As with
// the original, what somebody else owns is left alone.
func (o *Operator) objects(ctx context.Context, cluster *apiv1.Cluster) error {
	if err := o.certificates(ctx, cluster); err != nil {
		return err
	}
	if cluster.ShouldCreateApplicationSecret() {
		if err := o.secret(ctx, cluster, cluster.GetApplicationSecretName(), cluster.GetApplicationDatabaseName(),
			cluster.GetApplicationDatabaseOwner(), utils.UserTypeApp); err != nil {
			return err
		}
	}
	if cluster.GetEnableSuperuserAccess() && (cluster.Spec.SuperuserSecret == nil || cluster.Spec.SuperuserSecret.Name == "") {
		if err := o.secret(ctx, cluster, cluster.GetSuperuserSecretName(), "*", "postgres", utils.UserTypeSuperuser); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		enabled bool
		service *corev1.Service
	}{
		{cluster.IsReadWriteServiceEnabled(), specs.CreateClusterReadWriteService(*cluster)},
		{cluster.IsReadOnlyServiceEnabled(), specs.CreateClusterReadOnlyService(*cluster)},
		{cluster.IsReadServiceEnabled(), specs.CreateClusterReadService(*cluster)},
	} {
		if s.enabled {
			if err := o.create(ctx, cluster, s.service); err != nil {
				return err
			}
		}
	}
	return o.create(ctx, cluster, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: cluster.Name, Namespace: cluster.Namespace}})
}

func (o *Operator) secret(ctx context.Context, cluster *apiv1.Cluster, name, database, user string, kind utils.UserType) error {
	// Looked for first, to draw no password in vain.
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: name}, &corev1.Secret{})
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("secret %s: %w", name, err)
	}
	random := make([]byte, 48)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	password := base64.RawURLEncoding.EncodeToString(random) // 64 characters, as the original's
	return o.create(ctx, cluster, specs.CreateSecret(name, cluster.Namespace, cluster.GetServiceReadWriteName(), database, user, password, kind))
}

// create creates an object that goes with the cluster, unless one of its name is there.
func (o *Operator) create(ctx context.Context, cluster *apiv1.Cluster, object client.Object) error {
	m := metav1.ObjectMeta{Labels: maps.Clone(object.GetLabels()), Annotations: maps.Clone(object.GetAnnotations())}
	cluster.SetInheritedDataAndOwnership(&m)
	object.SetLabels(m.Labels)
	object.SetAnnotations(m.Annotations)
	object.SetOwnerReferences(m.OwnerReferences)
	err := o.Client.Create(ctx, object)
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) {
		return waiting{apiv1.PhaseCannotCreateClusterObjects, err.Error()}
	}
	return fmt.Errorf("creating %T %s: %w", object, object.GetName(), err)
}

// state is what there is of a cluster's instances, by name and in order.
type state struct{ pods, ready, claims []string }

func (o *Operator) instances(ctx context.Context, cluster *apiv1.Cluster) (state, error) {
	var out state
	selector := client.MatchingLabels{utils.ClusterLabelName: cluster.Name, utils.PodRoleLabelName: string(utils.PodRoleInstance)}
	var pods corev1.PodList
	if err := o.Client.List(ctx, &pods, client.InNamespace(cluster.Namespace), selector); err != nil {
		return out, fmt.Errorf("listing pods: %w", err)
	}
	var claims corev1.PersistentVolumeClaimList
	if err := o.Client.List(ctx, &claims, client.InNamespace(cluster.Namespace),
		client.MatchingLabels{utils.ClusterLabelName: cluster.Name}); err != nil {
		return out, fmt.Errorf("listing volume claims: %w", err)
	}
	known := map[string]*corev1.Pod{}
	for i := range pods.Items {
		p := &pods.Items[i]
		known[p.Name] = p
		out.pods = append(out.pods, p.Name)
		if ready(p) {
			out.ready = append(out.ready, p.Name)
		}
	}
	for i := range claims.Items {
		out.claims = append(out.claims, claims.Items[i].Name)
	}
	for _, names := range [][]string{out.pods, out.ready, out.claims} {
		sort.Strings(names)
	}
	if cluster.Spec.Bootstrap.InitDB != nil {
		if err := o.initDB(ctx, cluster, len(out.pods) > 0); err != nil {
			return out, err
		}
	}
	// One after the other, as the original clones a replica from a primary.
	for serial := 1; serial <= cluster.Spec.Instances; serial++ {
		name := specs.GetInstanceName(cluster.Name, serial)
		why := waiting{apiv1.PhaseFirstPrimary, "Creating primary instance " + name}
		if serial > 1 {
			why = waiting{apiv1.PhaseCreatingReplica, "Creating replica " + name}
		}
		pod := known[name]
		if pod == nil {
			if err := o.instance(ctx, cluster, serial); err != nil {
				return out, err
			}
			return out, why
		}
		if !ready(pod) {
			if cluster.Status.CurrentPrimary != "" && serial <= cluster.Status.ReadyInstances {
				why = waiting{apiv1.PhaseWaitingForInstancesToBeActive, "Some instances are not yet active. Please wait."}
			}
			return out, why
		}
	}
	// A surplus goes from the end; the primary stays.
	for _, name := range out.pods {
		serial, err := specs.GetNodeSerial(known[name].ObjectMeta)
		if err != nil || serial <= cluster.Spec.Instances || known[name].DeletionTimestamp != nil {
			continue
		}
		for _, object := range []client.Object{known[name], &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: cluster.Namespace}}} {
			if err := o.Client.Delete(ctx, object); err != nil && !apierrors.IsNotFound(err) {
				return out, fmt.Errorf("removing instance %s: %w", name, err)
			}
		}
	}
	return out, nil
}

// initDB checks the secret of the application's user. The original's first pod
// cannot start without it; a wrong user name fails inside the instance.
func (o *Operator) initDB(ctx context.Context, cluster *apiv1.Cluster, started bool) error {
	name, owner := cluster.GetApplicationSecretName(), cluster.GetApplicationDatabaseOwner()
	if started || !cluster.ShouldInitDBCreateApplicationDatabase() {
		return nil
	}
	wait := func(format string, args ...any) error {
		return waiting{apiv1.PhaseFirstPrimary, "Creating primary instance " + specs.GetInstanceName(cluster.Name, 1) + ": " + fmt.Sprintf(format, args...)}
	}
	var secret corev1.Secret
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: name}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return wait("secret %q not found", name)
	case err != nil:
		return fmt.Errorf("secret %s: %w", name, err)
	}
	for _, key := range []string{corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey} {
		if len(secret.Data[key]) == 0 {
			return wait("couldn't find key %s in Secret %s/%s", key, cluster.Namespace, name)
		}
	}
	if user := string(secret.Data[corev1.BasicAuthUsernameKey]); user != owner {
		return wait("wrong username '%s' in secret %s, expected '%s'", user, name, owner)
	}
	return nil
}

func (o *Operator) instance(ctx context.Context, cluster *apiv1.Cluster, serial int) error {
	name := specs.GetInstanceName(cluster.Name, serial)
	volumes := []persistentvolumeclaim.CreateConfiguration{{
		Status: persistentvolumeclaim.StatusReady, NodeSerial: serial,
		Calculator: persistentvolumeclaim.NewPgDataCalculator(), Storage: cluster.Spec.StorageConfiguration,
	}}
	if cluster.ShouldCreateWalArchiveVolume() {
		volumes = append(volumes, persistentvolumeclaim.CreateConfiguration{
			Status: persistentvolumeclaim.StatusReady, NodeSerial: serial,
			Calculator: persistentvolumeclaim.NewPgWalCalculator(), Storage: *cluster.Spec.WalStorage,
		})
	}
	for i := range volumes {
		claim, err := persistentvolumeclaim.Build(cluster, &volumes[i])
		if err != nil {
			return waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("volume claim of %s: %v", name, err)}
		}
		if err := o.create(ctx, cluster, claim); err != nil {
			return err
		}
	}
	pod, err := specs.NewInstance(ctx, *cluster, serial, true)
	if err != nil {
		return waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("pod %s: %v", name, err)}
	}
	role := specs.ClusterRoleLabelPrimary
	if serial > 1 {
		role = specs.ClusterRoleLabelReplica
	}
	pod.Labels[utils.ClusterInstanceRoleLabelName] = role
	pod.Labels[utils.ClusterRoleLabelName] = role //nolint:staticcheck // the original still writes it
	return o.create(ctx, cluster, pod)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}
