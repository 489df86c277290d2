module opstella.dev/lab/gitlab

go 1.26.0
