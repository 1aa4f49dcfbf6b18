//! The columns of every file of rows, as readers are promised them. A file without a row is empty.

use std::fs;
use std::path::Path;

const TRIALS: &str = "run_id,started_utc,pass,workload,block,order,arm,backend,knobs,in_force,\
    workers,server_cpus,client_cpus,network_namespace,path,mtu,congestion,offloads,\
    connections,active_connections,\
    service,message_bytes,pipeline_depth,arrival,offered_per_s,late_sends,unsent,owed,\
    achieved_per_s,echoes,bytes_per_s,duration_s,warmup_s,warmup_settled,warmup_echoes,\
    latency_mean_us,latency_p50_us,\
    latency_p90_us,latency_p99_us,latency_p999_us,latency_max_us,service_p50_us,service_p99_us,\
    send_lag_p50_us,send_lag_p99_us,server_cpu_ns_per_echo,server_cpu_ns_per_mib,\
    server_cpu_source,server_cpu_user_ns_per_echo,server_cpu_kernel_ns_per_echo,\
    server_cpu_division_ticks,\
    worked_ns_per_echo,\
    client_cpu_ns_per_echo,machine_cpu_ns_per_echo,machine_softirq_ns_per_echo,\
    machine_iowait_percent,cpu_pressure_percent,io_pressure_percent,\
    client_cpu_percent,context_switches_per_echo,cpu_quota_percent,throttled_percent,\
    server_run_delay_percent,\
    client_run_delay_percent,connections_per_s,connect_p50_us,connect_p99_us,\
    server_cpu_ns_per_connection,fairness_connections,slowest_connection_over_mean,\
    fastest_connection_over_mean,fairness_workers,busiest_worker_percent,syscalls_per_echo,\
    syscalls_source,events_per_wait,loop_counters,memory_user_bytes_per_connection,\
    memory_kernel_bytes_per_connection,steal_percent,retransmitted_segments,idle_spinner,\
    shared_cpu,shared_core,status,reason";

const SCALE: &str = "run_id,arm,backend,step,connections,active_connections,arrival,server,\
    repeat,duration_s,connections_per_s,connect_p50_us,connect_p99_us,connect_max_us,\
    offered_per_s,owed,achieved_per_s,echoes,latency_p50_us,latency_p99_us,latency_p999_us,\
    latency_max_us,service_p50_us,service_p99_us,server_cpu_ns_per_echo,server_cpu_percent,\
    client_cpu_ns_per_echo,other_cpu_percent,wakeups_per_s,machine_iowait_percent,\
    cpu_pressure_percent,io_pressure_percent,syscalls_per_echo,events_per_wait,\
    machine_available_bytes,status,reason";

const FILES: [(&str, &str); 12] = [
    (
        "capacity.csv",
        "sweep,arm,objective_p99_us,kept_per_s,kept_p99_us,kept_p99_low_us,kept_p99_high_us,\
         missed_per_s,missed_p99_us,missed_p99_low_us,missed_p99_high_us,bounds,missed_because",
    ),
    (
        "comparisons.csv",
        "workload,metric,arm,backend,baseline,baseline_median,arm_median,ratio,bounds,ratio_low,\
         ratio_high,mean_ratio,mean_ratio_low,mean_ratio_high,difference,difference_low,\
         difference_high,blocks,rounds,block_sd_percent,p_value,p_adjusted,margin_percent,\
         detectable_percent,blocks_to_spare,verdict",
    ),
    ("events.csv", "run_id,workload,arm,backend,event,count,count_per_echo,source"),
    ("functions.csv", "run_id,workload,arm,kernel,class,function,instructions_per_echo"),
    (
        "hardware.csv",
        "run_id,workload,arm,backend,mode,event,counted,running_percent,count_per_echo,source",
    ),
    (
        "instructions.csv",
        "run_id,workload,arm,backend,kernel,emulator,plugin,cpu_model,boot,seed,window,echoes,\
         events_per_wait,side,class,instructions,instructions_per_echo,bounds",
    ),
    (
        "memory.csv",
        "run_id,arm,backend,state,space,object,aliases,bytes_per_connection,low,high,\
         intercept_bytes,down_bytes_per_connection,over_null_bytes_per_connection,over_null_low,\
         over_null_high,status",
    ),
    (
        "memory_points.csv",
        "run_id,arm,backend,state,direction,connections,space,object,bytes,settled",
    ),
    ("scale.csv", SCALE),
    ("syscalls.csv", "run_id,workload,arm,backend,syscall,calls,calls_per_echo,source"),
    ("trials.csv", TRIALS),
    (
        "windows.csv",
        "run_id,workload,arm,set,round,turn,echoes,server_cpu_ns,client_cpu_ns,latency_p50_us",
    ),
];

/// Files beside those of rows.
const OTHERS: [&str; 3] = ["histograms", "manifest.json", "report.html"];

/// Checks that the folder of a run holds its files and no others, that these files have rows, and
/// that every row has the columns of its file. Only a sweep has a capacity, and where there is no
/// figure there are no charts.
#[track_caller]
pub fn assert_files(folder: &Path, with_rows: &[&str]) {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "charts")
        .collect();
    names.sort();
    let has_capacity = names[0] == "capacity.csv";
    let mut expected =
        [&FILES.map(|(file, _)| file)[usize::from(!has_capacity)..], &OTHERS].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (file, columns) in &FILES[usize::from(!has_capacity)..] {
        let mut reader = csv::Reader::from_path(folder.join(file)).unwrap();
        let header = reader.headers().unwrap().iter().collect::<Vec<_>>().join(",");
        // An uneven row is an error.
        let rows = reader.records().map(Result::unwrap).count();
        assert!(rows > 0 || !with_rows.contains(file), "{file} has no rows");
        assert_eq!(header, if rows > 0 { *columns } else { "" }, "{file}");
    }
}
