// Command envoy asks a Consul agent what Envoy would be told to be the sidecar of a service. It speaks the protocol of
// Envoy (ADS, incremental) with the agent's gRPC port, and prints a line of JSON whenever the agent has said something:
//
//   - upstreams has for each upstream the clusters in the order of failover, with the server name, the identities and
//     the endpoints.
//   - clients has the rules (config.rbac.v3.RBAC) that say which clients Envoy serves; null if there are none.
//
// For example:
//
//	envoy 127.0.0.1:8502 web-sidecar-proxy [TOKEN]
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	types "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: envoy ADDRESS PROXY [TOKEN]")
		os.Exit(2)
	}
	ctx := context.Background()
	if len(os.Args) > 3 {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-consul-token", os.Args[3])
	}
	fmt.Fprintln(os.Stderr, "envoy:", follow(ctx, os.Args[1], os.Args[2]))
	os.Exit(1)
}

// A line is what the command prints.
type line struct {
	Upstreams map[string][]target `json:"upstreams"`
	Clients   json.RawMessage     `json:"clients"`
}

// follow prints what the agent says, until an error.
func follow(ctx context.Context, address, proxy string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	node := &core.Node{Id: proxy, Cluster: proxy, UserAgentName: "envoy",
		UserAgentVersionType: &core.Node_UserAgentBuildVersion{UserAgentBuildVersion: &core.BuildVersion{
			Version: &types.SemanticVersion{MajorNumber: 1, MinorNumber: 35}}}}
	for _, kind := range []string{clusterType, listenerType} {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: kind}); err != nil {
			return err
		}
	}
	known, print := newView(), json.NewEncoder(os.Stdout)
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := known.apply(answer); err != nil {
			return err
		}
		requests := []*discovery.DeltaDiscoveryRequest{{TypeUrl: answer.TypeUrl, ResponseNonce: answer.Nonce}}
		if fresh, gone := known.wanted(); len(fresh)+len(gone) > 0 {
			requests = append(requests, &discovery.DeltaDiscoveryRequest{TypeUrl: endpointType,
				ResourceNamesSubscribe: fresh, ResourceNamesUnsubscribe: gone})
		}
		for _, r := range requests {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		clients, err := known.clients()
		if err != nil {
			return err
		}
		if err := print.Encode(line{known.upstreams(), clients}); err != nil {
			return err
		}
	}
}
