module barman-cloud-callers

go 1.25.0

require (
	github.com/cloudnative-pg/barman-cloud v0.5.0
	github.com/cloudnative-pg/machinery v0.3.3
)
