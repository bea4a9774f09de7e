//! Owns what a node measures, for scrapers: gathered at one call, without walking anybody's users.

use std::sync::Arc;

use super::Node;
use crate::map::partition_of;
use crate::partition::PartitionHandle;
use crate::phases::Phases;
use crate::status::NodeFigures;

impl Node {
    /// What the node measures.
    pub fn figures(&self) -> NodeFigures {
        let queued =
            |partition: Arc<PartitionHandle>| (partition.id(), partition.proposer().waiting() as u64);
        let diverged = self.host.survey.all().diverged();
        NodeFigures {
            phases: self.phases().times(),
            queued: self.partitions.all().map(queued).collect(),
            log: self.log.status(),
            diverged: diverged.into_iter().filter_map(|(group, _)| partition_of(group)).collect(),
            disk_free_bytes: self.fs.free_bytes(&self.data_dir).ok(),
        }
    }

    /// Where is noted how long things take.
    pub fn phases(&self) -> &Arc<Phases> {
        self.partitions.phases()
    }
}
