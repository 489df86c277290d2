module opstella.invalid/lab/rke2

go 1.26

require (
	github.com/klauspost/compress v1.18.7
	gopkg.in/yaml.v3 v3.0.1
)
