package main

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tallow/server/hub"
	"tallow/server/relay"
)

// metrics reads the numbers of hub and relay when it is asked for them. The relay may be nil.
type metrics struct {
	hub   *hub.Hub
	relay *relay.Server
}

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("tallow_"+name, help, labels, nil), kind}
}

var (
	metricConnections = newMetric(prometheus.GaugeValue, "hub_connections", "Signaling connections.")
	metricRooms       = newMetric(prometheus.GaugeValue, "hub_rooms", "Rooms, empty ones that are remembered included.")
	metricMembers     = newMetric(prometheus.GaugeValue, "hub_members", "Members present in rooms.")
	metricEnvelopes   = newMetric(prometheus.CounterValue, "hub_envelopes_total", "Envelopes passed on.")
	metricBytes       = newMetric(prometheus.CounterValue, "hub_envelope_bytes_total", "Bytes of the messages that passed them on.")
	metricAbsent      = newMetric(prometheus.CounterValue, "hub_envelopes_absent_total", "Envelopes to members that were not present.")
	metricDropped     = newMetric(prometheus.CounterValue, "hub_envelopes_dropped_total", "Envelopes for which there was no room.")
	metricWaiting     = newMetric(prometheus.GaugeValue, "hub_waiting_bytes", "Memory of what waits to be written, and of long messages being read.")
	metricClosings    = newMetric(prometheus.CounterValue, "hub_closings_total", "Connections ended, by closing code; 0: by the client.", "code")

	metricRelays     = newMetric(prometheus.GaugeValue, "turn_allocations", "TURN allocations.")
	metricHolders    = newMetric(prometheus.GaugeValue, "turn_holders", "Members that have TURN allocations.")
	metricTCP        = newMetric(prometheus.GaugeValue, "turn_tcp_connections", "TCP connections of TURN clients.")
	metricRelayed    = newMetric(prometheus.CounterValue, "turn_datagrams_total", "Datagrams to and from peers.", "direction")
	metricRelayBytes = newMetric(prometheus.CounterValue, "turn_bytes_total", "Their bytes.", "direction")
	metricRefused    = newMetric(prometheus.CounterValue, "turn_refused_total", "Permissions and datagrams refused.")

	hubMetrics   = []metric{metricConnections, metricRooms, metricMembers, metricEnvelopes, metricBytes, metricAbsent, metricDropped, metricWaiting, metricClosings}
	relayMetrics = []metric{metricRelays, metricHolders, metricTCP, metricRelayed, metricRelayBytes, metricRefused}
)

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, one := range hubMetrics {
		ch <- one.desc
	}
	for _, one := range relayMetrics {
		ch <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	put := func(one metric, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(one.desc, one.kind, v, labels...)
	}
	h := m.hub.Stats()
	put(metricConnections, float64(h.Connections))
	put(metricRooms, float64(h.Rooms))
	put(metricMembers, float64(h.Members))
	put(metricEnvelopes, float64(h.Relayed))
	put(metricBytes, float64(h.RelayedBytes))
	put(metricAbsent, float64(h.Absent))
	put(metricDropped, float64(h.Dropped))
	put(metricWaiting, float64(h.Waiting))
	for code, n := range h.Closings {
		put(metricClosings, float64(n), strconv.Itoa(int(code)))
	}
	if m.relay == nil {
		return
	}
	r := m.relay.Stats()
	put(metricRelays, float64(r.Relays))
	put(metricHolders, float64(r.Holders))
	put(metricTCP, float64(r.TCP))
	put(metricRelayed, float64(r.Sent), "sent")
	put(metricRelayed, float64(r.Received), "received")
	put(metricRelayBytes, float64(r.SentBytes), "sent")
	put(metricRelayBytes, float64(r.ReceivedBytes), "received")
	put(metricRefused, float64(r.Refused))
}

// handler serves them at /metrics.
func (m metrics) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
