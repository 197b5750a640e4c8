"""Schedules for annotation: cron expressions, Kubernetes manifests, crontab, systemd, Airflow."""
