#!/bin/sh
# What a container of the Dockerfile does with its words: docker run kaskade inference prompt="a red circle" …
set -eu
word=${1:-help}
[ $# -eq 0 ] || shift
port=7860

case $word in
inference | train | dataset_tools) exec python -m "$word" "$@" ;;
# Pages listen on all addresses of the container; who reaches them is decided by `docker run -p`.
app) exec python -m inference.app host=0.0.0.0 port=$port "$@" ;;
monitor) exec python -m train.monitor host=0.0.0.0 port=$port "$@" ;;
download) exec python -m scripts.download_models "$@" ;;
python | torchrun | sh) exec "$word" "$@" ;;
healthy)
    # Whether the page answers, where the container serves one.
    tr '\0' ' ' </proc/1/cmdline | grep -Eq 'inference\.app|train\.monitor|container\.sh (app|monitor)' || exit 0
    exec python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/', timeout=5)"
    ;;
help | -h | --help)
    cat <<'END'
docker run kaskade WORD …:
  inference KEY=VALUE …      pictures; `inference --help` lists the settings
  train KEY=VALUE …          a training
  dataset_tools WORD …       pack, inspect, precompute
  app run=FOLDER …           the web page, on port 7860 (add -p 127.0.0.1:7860:7860)
  monitor run=FOLDER …       the page of a training, on port 7860
  download …                 released weights into models/
  torchrun … | python … | sh anything else
Folders to mount: /kaskade/models, /kaskade/outputs, /kaskade/data.
END
    ;;
*)
    echo "error: $word: expected inference, train, dataset_tools, app, monitor, download, torchrun, python, sh or help" >&2
    exit 2
    ;;
esac
