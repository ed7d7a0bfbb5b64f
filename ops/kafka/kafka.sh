#!/usr/bin/env bash
# A real single-node Apache Kafka (KRaft, no ZooKeeper) on this machine, from Maven Central's artifacts.
#
#   ops/kafka/kafka.sh fetch              download the jars once (about 120 MB)
#   ops/kafka/kafka.sh run DIR PORT       format DIR/kafka on first use, run in the foreground on 127.0.0.1:PORT
#   ops/kafka/kafka.sh start DIR PORT     the same in the background: returns once it answers; pid in DIR/broker.pid
#   ops/kafka/kafka.sh stop DIR
#
# With LOCAL_KAFKA_USER=NAME:PASSWORD its listener is SASL_SSL, for that user, by SCRAM-SHA-256 or PLAIN; the certificate that
# clients have to trust is DIR/kafka/ca.pem then.
#
# The jars are kept beside the build (build/kafka-VERSION, or $LOCAL_KAFKA_HOME); data and logs stay in DIR.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's:.*<version>\([0-9.]*\)</version>.*:\1:p' "$here/pom.xml" | sed -n 2p)
home=${LOCAL_KAFKA_HOME:-$here/../../build/kafka-$version}

die() {
    echo "kafka.sh: $*" >&2
    exit 1
}

fetch() {
    [ -f "$home/.complete" ] && return
    command -v mvn >/dev/null || die "Maven is missing: run ops/install.sh kafka"
    mkdir -p "$home"
    ( # two pipelines may start at the same moment: one of them fetches, into a folder of its own, then renamed
        flock 9
        [ ! -f "$home/.complete" ] || exit 0
        tmp=$(mktemp -d "$home/fetch.XXXXXX")
        cp "$here/pom.xml" "$tmp/"
        (cd "$tmp" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime) >&2 ||
            die "Maven could not fetch Apache Kafka $version (its messages are above)"
        rm -rf "$home/libs"
        mv -T "$tmp/libs" "$home/libs"
        rm -rf "$tmp"
        touch "$home/.complete"
    ) 9>"$home/.lock"
}

# -XX:TieredStopAtLevel=1: a broker that lives for minutes spends more on the second compiler than it gains by it.
java_kafka() { java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$home/libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn "$@"; }

# Controller and broker in one process; the controller's port is the broker's plus one or any free one above.
free_port() {
    local p=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; do p=$((p + 1)); done
    echo "$p"
}

certify() { # DIR: a key of its own, whose certificate is ca.pem
    local dir=$1
    [ ! -f "$dir/kafka/ca.pem" ] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=127.0.0.1 \
        -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout "$dir/kafka/key.pem" -out "$dir/kafka/ca.pem" 2>/dev/null ||
        die "openssl could not make $dir/kafka/key.pem: run ops/install.sh kafka"
    cat "$dir/kafka/ca.pem" >>"$dir/kafka/key.pem"
}

secure() { # DIR: the settings of a listener for LOCAL_KAFKA_USER
    local user=${LOCAL_KAFKA_USER%%:*} password=${LOCAL_KAFKA_USER#*:} module=org.apache.kafka.common.security
    cat <<PROPERTIES
sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.client.scram-sha-256.sasl.jaas.config=$module.scram.ScramLoginModule required;
listener.name.client.plain.sasl.jaas.config=$module.plain.PlainLoginModule required username="$user" password="$password" user_$user="$password";
ssl.keystore.type=PEM
ssl.keystore.location=$1/kafka/key.pem
ssl.truststore.type=PEM
ssl.truststore.location=$1/kafka/ca.pem
PROPERTIES
}

configure() { # DIR PORT
    local dir=$1 port=$2 controller protocol=PLAINTEXT scram=()
    mkdir -p "$dir/kafka"
    controller=$(free_port $((port + 1)))
    if [ "${LOCAL_KAFKA_USER:-}" ]; then
        protocol=SASL_SSL
        scram=(--add-scram "SCRAM-SHA-256=[name=${LOCAL_KAFKA_USER%%:*},password=${LOCAL_KAFKA_USER#*:}]")
        certify "$dir"
    fi
    cat >"$dir/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=CLIENT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=CLIENT://127.0.0.1:$port
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:$protocol,CONTROLLER:PLAINTEXT
log.dirs=$dir/kafka/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
message.max.bytes=8388608
replica.fetch.max.bytes=8388608
PROPERTIES
    [ $protocol = PLAINTEXT ] || secure "$dir" >>"$dir/kafka/server.properties"
    [ -f "$dir/kafka/data/meta.properties" ] && return
    # Kafka's form of a UUID, which it takes a second of Java to make; one that begins with - would look like an option
    local id
    id=A$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)
    java_kafka kafka.tools.StorageTool format -t "$id" -c "$dir/kafka/server.properties" --standalone "${scram[@]}" >/dev/null ||
        die "formatting $dir/kafka/data failed; Java 17 or later is needed"
}

run() { # DIR PORT
    command -v java >/dev/null || die "Java is missing: run ops/install.sh kafka"
    fetch
    mkdir -p "$1"
    local dir
    dir=$(cd "$1" && pwd)
    configure "$dir" "$2"
    # exec: the caller's child is Kafka itself, so signals and pids mean what they say.
    exec java -XX:TieredStopAtLevel=1 -Xms256m -Xmx512m -XX:+UseSerialGC -cp "$home/libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        kafka.Kafka "$dir/kafka/server.properties"
}

start() { # DIR PORT
    mkdir -p "$1"
    fetch
    setsid "$0" run "$1" "$2" >"$1/kafka.log" 2>&1 </dev/null &
    local pid=$!
    echo "$pid" >"$1/broker.pid"
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || {
            tail -n 20 "$1/kafka.log" >&2
            die "Kafka ended while starting (the end of $1/kafka.log is above)"
        }
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
        sleep 0.1
    done
    die "Kafka did not open port $2 within 30 s; see $1/kafka.log"
}

stop() { # DIR
    [ -f "$1/broker.pid" ] || return 0
    local pid
    pid=$(cat "$1/broker.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 150); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$1/broker.pid"
}

case "${1:-}" in
fetch) fetch ;;
run | start)
    [ $# -eq 3 ] || die "usage: kafka.sh $1 DIR PORT"
    "$1" "$2" "$3"
    ;;
stop)
    [ $# -eq 2 ] || die "usage: kafka.sh stop DIR"
    stop "$2"
    ;;
*)
    sed -n '2,10p' "$0" >&2
    exit 2
    ;;
esac
