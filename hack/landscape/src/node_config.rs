//! Configuration files of a node's programs.

use std::path::Path;

use serde_json::json;

use crate::cluster::Cluster;
use crate::image::PAUSE;
use crate::node::NodePlace;
use crate::pki::Pair;

/// containerd: own folders and socket, runc, the plain bridge.
pub(crate) fn containerd(place: &NodePlace) -> String {
    let (data, run) = (place.data.display(), place.run.display());
    // Without CAP_SYS_RESOURCE no process may lower its OOM score: every sandbox would fail.
    format!(
        r#"version = 2
root = "{data}/containerd"
state = "{run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "{run}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{data}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// The pod network: a bridge inside the node, without translation, because the host routes to the pods.
pub(crate) fn cni(pods: &str) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
                // Leases live in the node's own /run/containerd: gone with the node.
                "ipam": {
                    "type": "host-local", "dataDir": "/run/containerd/ipam",
                    "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

/// kubelet: pods below a control group of the node's own, nothing evicted for what the machine lacks.
pub(crate) fn kubelet(place: &NodePlace, group: &str, client_authority: &Path, serving: &Pair) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": client_authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": format!("unix://{}", place.socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        // Seen from the host, for readiness.
        "healthzBindAddress": "0.0.0.0",
        "resolvConf": place.data.join("resolv.conf"),
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": place.data.join("kubelet/volume-plugins"),
        "maxPods": 110,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "evictionPressureTransitionPeriod": "5s",
        // Short: a test's deleted pod or changed ConfigMap should not be waited for.
        "syncFrequency": "20s",
        "shutdownGracePeriod": "0s",
        "containerLogMaxSize": "5Mi",
        "containerLogMaxFiles": 2,
        "serializeImagePulls": true,
        "logging": {"verbosity": 1},
    })
    .to_string()
}

/// kube-proxy: nftables, and no wish to change the machine's connection tracking.
pub(crate) fn kube_proxy(cluster: Cluster, kubeconfig: &Path) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": cluster.node(),
        "clientConnection": {"kubeconfig": kubeconfig},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "metricsBindAddress": "127.0.0.1:10249",
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "cni"},
    })
    .to_string()
}
