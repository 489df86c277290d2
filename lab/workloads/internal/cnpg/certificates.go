package cnpg

import (
	"context"
	"crypto/x509"
	"fmt"

	apiv1 "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	"github.com/cloudnative-pg/cloudnative-pg/pkg/certs"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// certificates sees to a cluster's authorities and certificates: what the cluster names must be there and fit, or
// nothing else of it is made. An authority that it does not name is created. The certificates that the original signs
// by it are not: no instance here serves or uses one. As with the original, the names in a certificate are not looked at.
func (o *Operator) certificates(ctx context.Context, cluster *apiv1.Cluster) error {
	named := cluster.Spec.Certificates
	if named == nil {
		named = &apiv1.CertificatesConfiguration{}
	}
	// Of what the original's webhook refuses, so that no such cluster comes to be.
	switch {
	case named.ServerTLSSecret != "" && len(named.ServerAltDNSNames) > 0:
		return waiting{apiv1.PhaseDefinitionInvalid, "spec.certificates names both serverTLSSecret and serverAltDNSNames"}
	case named.ServerTLSSecret != "" && named.ServerCASecret == "":
		return waiting{apiv1.PhaseDefinitionInvalid, "spec.certificates names serverTLSSecret without serverCASecret"}
	case named.ReplicationTLSSecret != "" && named.ClientCASecret == "":
		return waiting{apiv1.PhaseDefinitionInvalid, "spec.certificates names replicationTLSSecret without clientCASecret"}
	}
	servers, err := o.authority(ctx, cluster, "server", named.ServerCASecret, cluster.GetServerCASecretName(), named.ServerTLSSecret == "")
	if err != nil {
		return err
	}
	if err := o.certificate(ctx, cluster,
		"generating server TLS certificate: missing specified server TLS secret", "server TLS certificate",
		named.ServerTLSSecret, servers, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	clients := servers
	if cluster.GetClientCASecretName() != cluster.GetServerCASecretName() {
		clients, err = o.authority(ctx, cluster, "client", named.ClientCASecret, cluster.GetClientCASecretName(), named.ReplicationTLSSecret == "")
		if err != nil {
			return err
		}
	}
	return o.certificate(ctx, cluster,
		"missing specified streaming replication client TLS secret", "streaming replication client certificate",
		named.ReplicationTLSSecret, clients, x509.ExtKeyUsageClientAuth)
}

// authority is the CA in the Secret name, created unless the cluster names it. What shall sign needs its key.
func (o *Operator) authority(ctx context.Context, cluster *apiv1.Cluster, whose, named, name string, signs bool) (*corev1.Secret, error) {
	refuse := func(err error) error {
		return waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("generating %s CA certificate: %v", whose, err)}
	}
	found := &corev1.Secret{}
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: name}, found)
	switch {
	case apierrors.IsNotFound(err) && named != "":
		return nil, waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("missing specified %s CA secret %s: %v", whose, name, err)}
	case apierrors.IsNotFound(err):
		pair, err := certs.CreateRootCA(cluster.Name, cluster.Namespace)
		if err != nil {
			return nil, refuse(err)
		}
		made := pair.GenerateCASecret(cluster.Namespace, name)
		return made, o.create(ctx, cluster, made)
	case err != nil:
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	text, there := found.Data[certs.CACertKey]
	if named != "" && !there {
		return nil, refuse(fmt.Errorf("missing %s secret data", certs.CACertKey))
	}
	if named == "" || signs {
		if _, err := certs.ParseCASecret(found); err != nil {
			return nil, refuse(err)
		}
	}
	// That it expires soon, or has expired, is no more than an event there.
	if _, _, err := (&certs.KeyPair{Certificate: text}).IsExpiring(); err != nil {
		return nil, refuse(err)
	}
	return found, nil
}

// certificate checks the Secret that a cluster names for a certificate: its key fits it, and ca vouches for it.
func (o *Operator) certificate(ctx context.Context, cluster *apiv1.Cluster, missing, what, name string, ca *corev1.Secret, usage x509.ExtKeyUsage) error {
	if name == "" {
		return nil
	}
	var found corev1.Secret
	err := o.Client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: name}, &found)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("secret %s: %w", name, err)
	}
	if err != nil {
		return waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("%s %s: %v", missing, name, err)}
	}
	pair, err := certs.ParseServerSecret(&found)
	if err == nil {
		err = pair.IsValid(&certs.KeyPair{Certificate: ca.Data[certs.CACertKey]}, &x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{usage}})
	}
	if err != nil {
		return waiting{apiv1.PhaseCannotCreateClusterObjects, fmt.Sprintf("generating %s: %v", what, err)}
	}
	return nil
}
