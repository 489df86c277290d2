external_url 'https://gitlab.devops.example.com'
letsencrypt['enable'] = false
gitlab_rails['nginx']['redirect_http_to_https'] = true
gitlab_rails['nginx']['client_max_body_size'] = '250m'
gitlab_rails['nginx']['proxy_read_timeout'] = 3600
gitlab_rails['gitlab_shell_ssh_port'] = 22
gitlab_rails['time_zone'] = 'UTC'
gitlab_rails['store_initial_root_password'] = false
gitlab_rails['display_initial_root_password'] = false
gitlab_rails['gitlab_signup_enabled'] = false
prometheus['listen_address'] = 'localhost:9090'
