module ragserve/bench/peers/proxy

go 1.21
