"""Drives dataiku-api-client through every recorded call against the fake DSS, and then through the smoke test; any
surprise is an exception.

A session wrapper counts the distinct routes, so that the claim "all of them" is measured and not believed.
"""

import io
import os
import re
import sys

import dataikuapi

MAJOR = int(sys.argv[1])
KEY = os.environ["FAKE_DSS_KEY"]
client = dataikuapi.DSSClient(os.environ["FAKE_DSS_URL"], KEY)
seen = set()
calls = 0
plain = client._session.request


def counted(method, url, **kwargs):
    seen.add((method, re.sub(r"^.*?/dip/publicapi", "", url)))
    return plain(method, url, **kwargs)


client._session.request = counted


def step(name, value=None):
    """One recorded call is done; `value` must not be falsy when given."""
    global calls
    calls += 1
    print("ok %2d %s" % (calls, name))
    return value


def refused(what, text, fn):
    try:
        fn()
    except Exception as e:
        assert text in str(e), (what, str(e))
    else:
        raise AssertionError("%s was not refused" % what)


# Instance, futures, keys.
step("get_auth_info", client.get_auth_info()["authIdentifier"])
info = client.get_instance_info()
assert info.node_type == "DESIGN", info.raw
step("get_instance_info")
assert "base" in step("get_licensing_status", client.get_licensing_status())
step("set_license", client.set_license('{"content": {"licenseKind": "TEST", "properties": {}}}'))
assert client.get_licensing_status()["base"]["licenseContent"]["licenseKind"] == "TEST"
sanity = step("perform_instance_sanity_check", client.perform_instance_sanity_check())
assert "WARN_CONNECTION_SPARK_NO_GROUP_WITH_DETAILS_READ_ACCESS" not in [m.code for m in sanity.messages]
step("perform_instance_sanity_check: future")
step("list_futures", client.list_futures())
future = client.perform_instance_sanity_check(wait=False)
assert future.get_state()["hasResult"] is False
step("future.get_state")
assert "jobId" in future.peek_state()
step("future.peek_state")
future.abort()
step("future.abort")
step("list_global_api_keys", client.list_global_api_keys())
created = client.create_global_api_key(label="dssflow", description="d", admin=True)
assert created.key
step("create_global_api_key")
assert dataikuapi.DSSClient(os.environ["FAKE_DSS_URL"], created.key).get_auth_info()
refused("a wrong key", "Unknown or revoked", dataikuapi.DSSClient(os.environ["FAKE_DSS_URL"], "no").get_auth_info)

# General settings: unknown keys vanish, a missing build config rejects the document.
settings = client.get_general_settings()
raw = step("get_general_settings", settings.settings)
registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team"
container = raw["containerSettings"]
if MAJOR >= 15:
    container["executionConfigs"].append({"name": "eks", "type": "KUBERNETES", "imageBuildConfig": "nowhere"})
    refused("an unknown build config", "references an unknown image build configuration", settings.save)
    container["buildConfigs"].append(
        {
            "name": "eks-build",
            "baseImageType": "EXEC",
            "imageBuilderType": "DOCKER",
            "dockerBuilderConfig": {"pushConfigs": [{"repositoryURL": registry, "prePushMode": "ECR"}]},
        }
    )
    container["executionConfigs"][0]["imageBuildConfig"] = "eks-build"
else:
    assert "buildConfigs" not in container
    container["executionConfigs"].append(
        {"name": "eks", "type": "KUBERNETES", "repositoryURL": registry, "prePushMode": "ECR"}
    )
container["executionConfigs"][0]["noSuchKey"] = 1
raw["sparkSettings"]["executionConfigs"][0]["kubernetesSettings"] = {
    "managedKubernetes": True,
    "repositoryURL": registry,
    "prePushMode": "ECR",
}
settings.save()
again = client.get_general_settings().settings
assert again["containerSettings"]["executionConfigs"][0]["name"] == "eks"
assert "noSuchKey" not in again["containerSettings"]["executionConfigs"][0]
step("general_settings.save")
assert client.get_general_settings().push_container_exec_base_images()["jobId"]
step("general_settings.push_container_exec_base_images")
pushed = step("push_base_images", client.push_base_images())
result = step("push_base_images: future", pushed.wait_for_result())
assert result["success"] and len(result["pushed"]) == 2, result
step("apply_kubernetes_namespaces_policies", client.apply_kubernetes_namespaces_policies().wait_for_result())
step("build_cde_plugins_image", client.build_cde_plugins_image().wait_for_result())

# Groups and users.
before = {group["name"] for group in step("list_groups", client.list_groups())}
group = step("create_group", client.create_group("g", description="d", source_type="LOCAL"))
definition = step("group.get_definition", group.get_definition())
definition["admin"] = False
step("group.set_definition", group.set_definition(definition))
assert {g["name"] for g in client.list_groups()} == before | {"g"}
group.delete()
step("group.delete")
assert [u["login"] for u in step("list_users", client.list_users())] == ["admin"]
user = step("create_user", client.create_user("u", "pw", groups=["g"], profile="DESIGNER"))
user_settings = step("user.get_settings", user.get_settings())
assert "password" not in user_settings.get_raw()
user.delete()
step("user.delete")

# Connections: secrets come back wrapped, duplicates are refused, the info call resolves credentials.
assert isinstance(step("list_connections", client.list_connections()), dict)
params = {
    "credentialsMode": "KEYPAIR",
    "accessKey": "AKIA",
    "secretKey": "a real secret",
    "hdfsInterface": "S3A",
    "noSuchKey": 1,
}
s3 = client.create_connection("s3a", "EC2", params=params, usable_by="ALLOWED", allowed_groups=["g"], description="desc")
step("create_connection")
refused("a duplicate", "already exists", lambda: client.create_connection("s3a", "EC2", params=params))
refused("type S3", "NullPointerException", lambda: client.create_connection("x", "S3", params={}))
assert step("list_connections_names", client.list_connections_names("EC2")) == ["s3a"]
connection = step("connection.get_settings", s3.get_settings())
assert connection.get_raw()["params"]["secretKey"] not in ("a real secret", None)
assert "noSuchKey" not in connection.get_raw()["params"]
connection.allow_write = True
connection.get_raw()["params"]["secretKey"] = "a real secret"
connection.save()
step("connection.settings.save: get")
step("connection.settings.save: put")
assert s3.get_settings().allow_write
assert step("connection.test", s3.test())["connectionOK"] is True
assert step("connection.get_info", s3.get_info())["resolvedAWSCredential"]["secretKey"] == "a real secret"

# SQL through an Athena connection that borrows the credentials of the S3 one.
athena_params = {
    "credentialsMode": "FROM_S3_CONNECTION",
    "s3Connection": "s3a",
    "driverJarsDirectory": "/opt/athena",
    "region": "eu-west-1",
}
athena = client.create_connection("athena_s3a", "Athena", params=athena_params)
query = step("sql_query", client.sql_query("SELECT 1", connection="athena_s3a"))
assert query.get_schema()[0]["name"] == "_col0"
query = step("sql_query rows+verify: open", client.sql_query("SELECT 1", connection="athena_s3a"))
assert [list(map(str, row)) for row in query.iter_rows()] == [["1"]]
step("sql_query rows+verify: rows")
query.verify()
step("sql_query rows+verify: verify")
athena.delete()
step("connection.delete")

# The plugin: store, archive, settings, presets, code env.
assert step("list_plugins", client.list_plugins()) == []
installed = step("install_plugin_from_store", client.install_plugin_from_store("eks-clusters").wait_for_result())
assert installed["success"] is True
step("install_plugin_from_store: future")
archive = io.BytesIO(b"PK\x03\x04")
archive.name = "dss-plugin-eks-clusters-1.5.0.zip"
plugin = client.get_plugin("eks-clusters")
removed = step("plugin.delete", plugin.delete(force=True).wait_for_result())
assert removed["success"] is True
client.install_plugin_from_archive(archive)
step("install_plugin_from_archive")
archive.seek(0)
repeated = client.start_install_plugin_from_archive(archive).wait_for_result()
assert repeated["success"] is False
step("start_install_plugin_from_archive")
git = client.install_plugin_from_git("https://github.com/dataiku/dss-plugin-eks-clusters").wait_for_result()
assert git["success"] is False
step("install_plugin_from_git")
plugin_settings = step("plugin.get_settings", plugin.get_settings())
env = step("plugin.create_code_env", plugin.create_code_env(python_interpreter="PYTHON39").wait_for_result())
assert env["envName"] == "plugin_eks-clusters_managed"
step("plugin.create_code_env: future")
plugin_settings.set_code_env(env["envName"])
preset = plugin_settings.get_parameter_set("connection-info").create_preset("aws-env")
preset.usable_by_all = True
network = plugin_settings.get_parameter_set("networking-settings").create_preset("dss-vpc")
network.config["subnets"] = ["subnet-a", "subnet-b"]
network.config["securityGroups"] = ["sg-default"]
network.config["noSuchKey"] = 1
plugin_settings.save()
step("plugin.create_preset+save: get")
step("plugin.create_preset+save: post")
kept = plugin.get_settings().get_raw()["presets"]
assert [p["name"] for p in kept] == ["aws-env", "dss-vpc"] and "noSuchKey" not in kept[1]["config"], kept
step("plugin.update_code_env", plugin.update_code_env().wait_for_result())
assert step("plugin.list_usages", plugin.list_usages()).get_raw()["usages"] == []
step("plugin.update_from_store", plugin.update_from_store().wait_for_result())

# The cluster.
assert step("list_clusters", client.list_clusters()) == []
config = {
    "connectionInfo": {"mode": "PRESET", "name": "aws-env"},
    "networkingSettings": {"mode": "PRESET", "name": "dss-vpc"},
    "nodePool": {"mode": "INLINE", "inlinedConfig": {"machineType": "m7i.xlarge", "numNodes": 2}},
    "clusterTags": {"dssflow": "true"},
    "k8sVersion": "1.33",
}
cluster = client.create_cluster(
    "eks1", "pycluster_eks-clusters_create-eks-cluster", params={"config": config}, cluster_architecture="KUBERNETES"
)
assert step("create_cluster", cluster.cluster_id) == "eks1"
cluster_settings = step("cluster.get_settings", cluster.get_settings())
cluster_settings.save()
step("cluster.settings.save: get")
step("cluster.settings.save: put")
assert step("cluster.get_status", cluster.get_status()).get_raw()["state"] == "NONE"
cluster.start()
step("cluster.start")
assert cluster.get_status().get_raw()["state"] == "RUNNING"
refused("a second start", "cannot start", cluster.start)
nodes = step("cluster.run_kubectl", cluster.run_kubectl("get nodes -o json"))
assert nodes["returnValue"] == 0 and nodes["output"].count('"Node"') == 2
assert len(plugin.list_usages().get_raw()["usages"]) == 1

# Projects.
assert step("list_projects", client.list_projects()) == []
project = step("create_project", client.create_project("P", "P", "admin"))
project_settings = step("project.get_settings", project.get_settings())
assert "k8sCluster" not in project_settings.get_raw()["settings"]
project_settings.get_raw()["settings"]["k8sCluster"] = {}
project_settings.set_k8s_cluster("eks1")
project_settings.set_container_exec_config("eks")
project_settings.save()
step("project.set_k8s_cluster+save")
assert project.get_settings().get_raw()["settings"]["k8sCluster"]["clusterId"] == "eks1"
dataset = project.create_dataset("d", "S3", params={"connection": "s3a", "metastoreSynchronizationEnabled": True})
assert len(step("project.list_datasets", project.list_datasets())) == 1
assert step("dataset.get_settings", dataset.get_settings()).type == "S3"
dataset.synchronize_hive_metastore()
step("dataset.synchronize_hive_metastore")
dataset.update_from_hive()
step("dataset.update_from_hive")
dataset.set_schema({"columns": [{"name": "id", "type": "bigint"}], "userModified": True})
assert dataset.get_schema()["columns"] == [{"name": "id", "type": "bigint"}]
assert dataset.list_partitions() == ["NP"]
partitioned = dataset.get_settings()
partitioned.get_raw()["partitioning"] = {"dimensions": []}
partitioned.add_discrete_partitioning_dimension("country")
partitioned.add_time_partitioning_dimension("day", "DAY")
partitioned.set_partitioning_file_pattern("/%{country}/%Y/%M/%D/.*")
partitioned.save()
assert [d["name"] for d in dataset.get_settings().get_raw()["partitioning"]["dimensions"]] == ["country", "day"]
assert dataset.list_partitions() == []
project.set_variables({"standard": {"env": "test"}, "local": {}})
assert project.get_variables()["standard"] == {"env": "test"}
dataset.set_schema({"columns": [], "userModified": False})
job = project.start_job({"type": "NON_RECURSIVE_FORCED_BUILD", "refreshHiveMetastore": True, "outputs": [{"id": "d"}]})
step("job.start(refreshHiveMetastore)")
assert dataikuapi.dss.job.DSSJobWaiter(job).wait() == "DONE"
step("job.start(refreshHiveMetastore): status")
scenario = step("project.create_scenario", project.create_scenario("resync", "step_based"))
fire = step("scenario.run", scenario.run())
step("scenario.get_last_runs", scenario.get_last_runs())
macro = project.get_macro("pyrunnable_eks-clusters_test-network")
run = step("macro.run", macro.run(params={"clusterId": "eks1"}, wait=False))
assert step("macro.get_status", macro.get_status(run))["running"] is False
step("macro.get_result", macro.get_result(run))
macro.abort(run)
step("macro.abort")

# The smoke test, as the bootstrap does it by the same routes: a managed dataset made by Python in a container, copied
# by Spark, counted by Athena, removed by name. These calls are no part of the 88.
connection = s3.get_settings()
connection.get_raw()["allowManagedDatasets"] = True
connection.get_raw()["params"].update(
    {
        "secretKey": "a real secret",
        "defaultManagedBucket": "b",
        "defaultManagedPath": "/dataiku",
        "metastoreSynchronizationMode": "KEEP_IN_SYNC",
        "metastoreDatabaseName": "db",
    }
)
connection.save()
spark = client.get_general_settings()
spark.settings["sparkSettings"]["sparkEnabled"] = True
spark.settings["metastoreCatalogsSettings"]["synchronizeTo"] = {
    "flavor": "GLUE",
    "glueCredentialsMode": "CONNECTION",
    "glueConnection": "s3a",
}
spark.save()
for name in ("rows", "copy"):
    builder = project.new_managed_dataset(name)
    builder.with_store_into("s3a", format_option_id="PARQUET_HIVE")
    made = builder.create().get_settings()
    assert made.get_raw()["params"]["path"].endswith("/P/" + name), made.get_raw()
builder = project.new_recipe("python", "make_rows")
builder.with_script("import pandas\nrows = range(3)\n").with_output("rows")
python_recipe = builder.create().get_settings()
python_recipe.get_recipe_params()["containerSelection"] = {"containerMode": "EXPLICIT_CONTAINER", "containerConf": "eks"}
python_recipe.save()
builder = project.new_recipe("pyspark", "copy_rows")
builder.with_script("pass").with_input("rows").with_output("copy")
spark_recipe = builder.create().get_settings()
spark_recipe.get_recipe_params()["sparkConfig"] = {"inheritConf": "default"}
spark_recipe.save()
assert project.get_recipe("make_rows").get_settings().get_recipe_params()["containerSelection"]["containerConf"] == "eks"
assert sorted(recipe["name"] for recipe in project.list_recipes()) == ["copy_rows", "make_rows"]
job = project.new_job("RECURSIVE_FORCED_BUILD").with_output("copy").with_refresh_metastore(True)
assert job.start_and_wait() is not None
athena = client.create_connection("athena_s3a", "Athena", params=athena_params)
table = project.get_dataset("copy").get_settings().get_raw()["params"]["metastoreTableName"]
count = client.sql_query('SELECT COUNT(*) FROM "db"."%s"' % table, connection="athena_s3a")
assert [list(map(str, row)) for row in count.iter_rows()] == [["3"]]
count.verify()
athena.delete()
for name in ("copy_rows", "make_rows"):
    project.get_recipe(name).delete()
for name in ("copy", "rows"):
    project.get_dataset(name).delete(drop_data=True)
assert [d["name"] for d in project.list_datasets()] == ["d"]
print("smoke: 3 rows")

# Code envs, variables, and the way back.
step("list_code_envs", client.list_code_envs())
code_env = step(
    "create_code_env", client.create_code_env("PYTHON", "e", "DESIGN_MANAGED", params={"pythonInterpreter": "PYTHON39"})
)
step("code_env.update_images", code_env.update_images())
step("get_global_variables", client.get_global_variables())
cluster.stop(terminate=False, force_stop=True)
step("cluster.stop")
cluster.delete()
step("cluster.delete")
project.delete()
step("project.delete")
assert client.list_projects() == [] and client.list_clusters() == []

print("%d calls, %d distinct routes" % (calls, len(seen)))
