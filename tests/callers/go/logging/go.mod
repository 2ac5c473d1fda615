module sigs.k8s.io/controller-runtime

go 1.25.0

require (
	github.com/go-logr/logr v1.4.3
	go.uber.org/zap v1.27.1
)
