module barman-cloud-callers

go 1.25.0

require (
	github.com/cloudnative-pg/barman-cloud v0.5.0
	github.com/cloudnative-pg/machinery v0.3.3
)

require (
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/lib/pq v1.10.9 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/thoas/go-funk v0.9.3 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.27.1 // indirect
	golang.org/x/sys v0.42.0 // indirect
	k8s.io/apimachinery v0.35.2 // indirect
	k8s.io/klog/v2 v2.130.1 // indirect
	sigs.k8s.io/controller-runtime v0.23.3 // indirect
)

replace sigs.k8s.io/controller-runtime => ./logging
