package rb

import "strings"

func set(names string) map[string]bool {
	all := map[string]bool{}
	for _, name := range strings.Fields(names) {
		all[name] = true
	}
	return all
}

// calls are written `name value`.
var calls = set(`
	external_url registry_external_url mattermost_external_url pages_external_url
	gitlab_kas_external_url runtime_dir git_data_dirs roles`)

// sections are written `name['key'] = value`: those of gitlab.rb.template in Omnibus GitLab 18 and 19.
var sections = set(`
	alertmanager bootstrap consul crond geo_logcursor geo_postgresql geo_secondary gitaly gitlab_ci
	gitlab_exporter gitlab_kas gitlab_monitor gitlab_pages gitlab_rails gitlab_shell gitlab_sshd
	gitlab_workhorse grafana high_availability incoming_email letsencrypt logging logrotate
	manage_accounts manage_storage_directories mattermost mattermost_nginx mailroom nginx node_exporter
	omnibus_gitconfig pages_nginx package patroni pgbouncer pgbouncer_exporter postgres_exporter
	postgresql praefect prometheus prometheus_monitoring puma redis redis_exporter registry
	registry_nginx gitlab_kas_nginx remote_syslog repmgr sentinel service_desk_email sidekiq
	spamcheck storage_check suggested_reviewers unicorn user web_server`)
